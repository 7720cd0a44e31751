"""Kernels in C++ for what small models spend their time on, and the operators of autograd around them."""
