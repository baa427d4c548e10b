"""What a user writes, for mypy: the types of the public interface. Nothing runs this."""

from typing import assert_type

import numpy as np

from reinforce_dropout import Experiment, load_evaluation, load_prediction, preset, train
from reinforce_dropout.results.records import Record
from reinforce_dropout.running import datasets
from reinforce_dropout.running.evaluation import Evaluation
from reinforce_dropout.systems import policy

experiment = assert_type(preset("policy-500").replace(lam=0.001), Experiment)
assert_type(policy.Settings(n_units=(20,)).n_units, tuple[int, ...])
policy.Settings(n_hidden=20)  # type: ignore[call-arg]
record = assert_type(train(experiment, "run.hdf5", data=(np.ones((9, 4)), np.ones(9))), Record)
dataset = assert_type(datasets.load("mnist"), datasets.Dataset)
assert_type(load_evaluation(record)(dataset.test), Evaluation)
assert_type(load_prediction(record, rule="expected")(np.ones((9, 4))), np.ndarray)
train(experiment, 3)  # type: ignore[arg-type]
assert_type(record.curves["train_nll"], np.ndarray)
