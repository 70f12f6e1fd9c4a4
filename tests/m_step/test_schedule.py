"""Learning rates, pauses and stop rules follow from counts and scores."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from rest.config import MStepConfig
from rest.m_step.schedule import Schedule, learning_rates
from tests.m_step.small_training import (
  make_examples,
)


def test_learning_rates_rise_then_fall():
  config = MStepConfig(learning_rate=2.0, warmup=0.1, final_rate=0.25)
  rates = learning_rates(config, 100)
  assert rates.argmax() in (9, 10)
  assert rates.max() == 2.0
  assert (np.diff(rates[:10]) > 0).all()
  assert (np.diff(rates[10:]) < 0).all()
  assert 0.5 <= rates[-1] < 0.51
  constant = dataclasses.replace(config, schedule='constant', warmup=0.0)
  assert (learning_rates(constant, 10) == 2.0).all()


def test_rates_and_pauses_are_those_of_the_worked_examples():
  config = MStepConfig(
    learning_rate=3.0, warmup=0.3, schedule='linear', max_steps=12, epochs=99
  )
  rates = [1, 2, 3, 3, 2.57, 2.14, 1.71, 1.29, 0.86, 0.43]
  assert learning_rates(config, 10).round(2).tolist() == pytest.approx(rates)
  config = dataclasses.replace(config, eval_every=4, save_every=3)
  schedule = Schedule(make_examples(), config, 0)
  pauses = {schedule.next_pause(done) for done in range(12)}
  assert pauses == {3, 4, 6, 8, 9, 12}
  assert [n for n in range(13) if schedule.validates_after(n)] == [4, 8, 12]


@pytest.mark.parametrize(
  ('stop', 'scores', 'ends', 'chosen'),
  [
    ('best', {1: 0.1, 2: 0.3, 3: 0.2}, False, 2),
    ('best', {1: 0.3, 2: 0.3}, False, 1),
    ('first_drop', {1: 0.1, 2: 0.3}, False, 2),
    ('first_drop', {1: 0.1, 2: 0.3, 3: 0.2}, True, 2),
    ('first_drop', {1: 0.1, 2: 0.1}, True, 1),
    ('fixed_steps', {1: 0.3, 2: 0.1}, False, None),
  ],
)
def test_stop_rules(stop: Any, scores: dict, ends: bool, chosen: int | None):
  schedule = Schedule(make_examples(), MStepConfig(stop=stop, epochs=99), 0)
  assert schedule.ends(max(scores), scores) == ends
  assert schedule.chosen(scores) == chosen
