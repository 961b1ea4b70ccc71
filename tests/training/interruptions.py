"""A run that is interrupted, and whether it came to the same."""

import torch


class Clock:
    """Time that passes by a checkpoint's interval at each look, until somebody presses Ctrl-C."""

    def __init__(self, interrupt_at=None):
        self.looks, self.interrupt_at = 0, interrupt_at

    def monotonic(self):
        self.looks += 1
        if self.looks == self.interrupt_at:
            raise KeyboardInterrupt
        return 61.0 * self.looks


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
