r"""Compiles a run's programs for TPUs, or GPUs, that are not there.

  python -m bench.tpu --topology=v5e:2x2 --shape=1.5b --program=decode
  python -m bench.tpu --topology=v5p:2x2x4 --shape=7b --program=train
  python -m bench.tpu --topology=h200:1x8 --shape=7b --program=train --rows=8

As `rest.main --dry_run --plan_for=v5e-4 --compile` does for a config, at shapes
for which there need be no model directory. Of each program it prints memory
beside the plan, operations and bytes a step, the time that the data sheet
allows for them, collectives, and how long it was compiled. Nothing runs.
"""

import argparse
from dataclasses import replace
from typing import Any

import jax

from bench.shapes import SHAPES
from rest.config import MeshConfig, MStepConfig, SamplerConfig
from rest.m_step import loss
from rest.model import hardware, sharding
from rest.model.transformer import ModelConfig
from rest.plan import compiled, elsewhere, programs

PREFIX, SAMPLES, TOP_K = 640, 32, 40


def setup(
  topology: str,
  model: ModelConfig,
  tensor: int,
  rows: int,
  table: int = 0,
  remat: Any = 'matmuls',
) -> programs.Setup:
  """Returns what a run on a topology compiles for.

  Args:
    topology: Such as 'v5e:4x4', or 'h100:2x8', two hosts of eight.
    model: Its shape.
    tensor: Devices that share a matrix product; all others share the weights.
    rows: Of training, on each device.
    table: Rows of sampling, of devices that sample together; 0: planned.
    remat: What training makes again, as in `MStepConfig`.
  """
  device, _ = hardware.parse(f'{topology.partition(":")[0]}-8')
  devices = elsewhere.devices(topology, device)
  mesh = sharding.make_mesh(
    MeshConfig(data=1, fsdp=len(devices) // tensor, tensor=tensor), devices
  )
  return programs.Setup(
    model=model,
    mesh=mesh,
    sampling_mesh=sharding.sampling_mesh(mesh, device),
    device=device,
    mstep=MStepConfig(
      rows=rows,
      row_length=2048,
      # JAX's kernel for TPUs knows none; where they are, attention is plain.
      share_prefixes=device.platform == 'gpu',
      remat=remat,
    ),
    sampling=SamplerConfig(rows=table),
    prefix=PREFIX,
    samples=SAMPLES,
    top_k=TOP_K,
  )


def main() -> None:
  """Compiles what the flags say."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--topology', default='v5e:2x2')
  parser.add_argument('--shape', choices=SHAPES, default='1.5b')
  parser.add_argument('--program', choices=programs.LOWERED, default='decode')
  parser.add_argument('--layers', type=int, default=0, help='0: all.')
  parser.add_argument('--tensor', type=int, default=1, help='Devices.')
  parser.add_argument('--rows', type=int, default=1, help='Trained, a device.')
  parser.add_argument('--table', type=int, default=0, help='0: planned.')
  parser.add_argument('--remat', choices=loss.REMATS, default='matmuls')
  flags = parser.parse_args()
  model = SHAPES[flags.shape]
  if flags.layers:
    model = replace(model, layers=flags.layers)
  there = setup(
    *(flags.topology, model, flags.tensor, flags.rows, flags.table, flags.remat)
  )
  print(f'jax {jax.__version__}, {there.mesh.size} x {there.device.kind}')
  for one in compiled.compile_all(there, flags.program):
    print(compiled.report(one, there.device), flush=True)


if __name__ == '__main__':
  main()
