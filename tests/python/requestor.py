"""pynetdicom as the one that asks."""
import threading

from pynetdicom import AE


class Requestor(AE):
    """An application entity whose associations lose no answer."""

    def associate(self, *where, **how):
        association = super().associate(*where, **how)
        association._reactor_checkpoint = Checkpoint(association)
        return association


class Checkpoint:
    """Where pynetdicom's reactor thread waits while a request waits for its answer.

    pynetdicom 3.0.4 asks the thread to wait and goes on while that may be about to look for messages once more: an answer that comes fast
    enough is then thrown away, and the request times out. This one goes on when the thread does wait.
    """

    def __init__(self, association):
        self.association, self.condition, self.is_open, self.waits = association, threading.Condition(), True, False

    def set(self):
        with self.condition:
            self.is_open = True
            self.condition.notify_all()

    def clear(self):
        with self.condition:
            self.is_open = False
            while not self.waits and not self.is_open and self.association.is_alive():
                self.condition.wait(0.05)

    def wait(self):
        with self.condition:
            while not self.is_open:
                self.waits = True
                self.condition.notify_all()
                self.condition.wait()
            self.waits = False
