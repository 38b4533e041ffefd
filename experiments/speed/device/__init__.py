"""The checks and measurements of `experiments/accelerator.py`, in the order in which they are read:

plan      the sections and their rows, with the texts of the page; imports no jax
driver    runs them in separate processes, within a budget of time
worker    one such process
checks    proofs in float64, the CPU against the device, bits, precision, buffers and memory
limits    rates of the device itself
training  steps per second, also beside a loop in purejaxrl's style
launches  kernels of compiled loops, and the time of a turn
report    the page
"""
