"""The result of a check on the device, which is read without waiting for what was launched after it."""

import torch
from torch import Tensor


class Verdict:
    """The truth of a boolean scalar.

    ``bool`` of a tensor on a GPU waits for all that was launched, the next step too. So it is copied to pinned memory
    at once, and an event tells when it is there.
    """

    def __init__(self, flag: Tensor) -> None:
        self.flag = flag
        self.event: torch.cuda.Event | None = None
        if flag.is_cuda:
            self.flag = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(flag, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def __bool__(self) -> bool:
        if self.event is not None:
            self.event.synchronize()
        return bool(self.flag)
