"""Kernels: functions of arrays that Numba compiles. None knows of PyTensor."""
