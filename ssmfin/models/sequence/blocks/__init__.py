"""Owns the blocks of the comparators. They import torch, ssmfin_kernels and the block contract, nothing else."""
