"""Prints the milliseconds that a loop of plain Python takes."""

import time

start = time.perf_counter()
total = 0
for number in range(2_000_000):
    total += number % 7
print((time.perf_counter() - start) * 1e3)
