"""A run, and what it finds: its problems, its base model, its devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath
from jax.sharding import AbstractMesh, Mesh

from rest.config import Config
from rest.model.hardware import Device
from rest.model.transformer import ModelConfig
from rest.sampler.capacity import Capacity
from rest.tasks.leaks import Leak
from rest.tasks.suites import Suite
from rest.types import Task, Tokenizer


@dataclass(frozen=True, slots=True)
class World:
  """What the fields of a config stand for, found and checked.

  Attributes:
    task: Asks, judges, and has the problems, less the leaks.
    leaks: Training problems dropped.
    suites: What is tested beside the task's own problems.
    tokenizer: Of the base model.
    model: Its shape.
    mesh: Of all devices; an abstract one in a plan for devices elsewhere.
    sampling_mesh: Devices that sample together: of one process, or of all in
      step.
    device: What kind they are.
    prefix: Tokens of the shared prefix.
    questions: Tokens of each question, by split.
    tables: The sampler's, in the order in which a list is drawn in them.
  """

  task: Task
  leaks: Sequence[Leak]
  suites: Sequence[Suite]
  tokenizer: Tokenizer
  model: ModelConfig
  mesh: Mesh | AbstractMesh
  sampling_mesh: Mesh | AbstractMesh
  device: Device
  prefix: int
  questions: Mapping[str, Sequence[int]]
  tables: Sequence[Capacity]


@dataclass(frozen=True, slots=True)
class Run:
  """What the loop holds; what it calls takes what it uses of it.

  Attributes:
    config: What was asked for.
    workdir: Where all files go.
    world: What was found.
  """

  config: Config
  workdir: epath.Path
  world: World
