"""What a task awaits instead of a future: it is resumed right where that is resolved, without a turn of the loop and a
handle of its own in between. As a task sees it, it is a future: the protocol is that of asyncio's own."""


@cython.final
@cython.freelist(256)
cdef class Awaited:
    """For the one task that awaits it. resolve() only where no task runs, as in the callback of a descriptor."""

    cdef object loop, wakeup, context
    cdef object error  # None: none
    cdef bint over
    cdef public bint _asyncio_future_blocking

    def __init__(self, loop):
        self.loop = loop

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.over:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration

    def done(self) -> bool:
        """Whether it was resolved, or cancelled."""
        return self.over

    def resolve(self) -> None:
        """Runs the task that waits up to its next wait; whoever was cancelled, or told before, hears nothing."""
        if self.over:
            return
        self.over = True
        wakeup, self.wakeup = self.wakeup, None
        if wakeup is not None:
            context, self.context = self.context, None
            context.run(wakeup, self)

    def fail(self, error) -> None:
        """Has the wait end with an error, later."""
        if self.over:
            return
        self.over = True
        self.error = error
        wakeup, self.wakeup = self.wakeup, None
        if wakeup is not None:
            context, self.context = self.context, None
            self.loop.call_soon(wakeup, self, context=context)

    # ---- what a task asks of a future ----

    def get_loop(self):
        """Of the task."""
        return self.loop

    def add_done_callback(self, call, *, context=None) -> None:
        """Once."""
        self.wakeup = call
        self.context = context

    def cancel(self, msg=None) -> bool:
        """False when it is over already."""
        from asyncio import CancelledError  # by now it is there; importing jscore does not bring it

        if self.over:
            return False
        self.fail(CancelledError() if msg is None else CancelledError(msg))
        return True

    def result(self):
        """None, or raises what it failed with."""
        if self.error is not None:
            raise self.error
