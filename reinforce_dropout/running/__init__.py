"""Running experiments: data, epochs, early stopping, evaluation, prediction, progress."""
