"""Stops a run early without losing steps: on SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal was closed), or maintenance
of a Cloud TPU."""

import faulthandler
import http.client
import itertools
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

# Google Cloud's metadata server on the machine itself. It delays its answer until the value changes.
MAINTENANCE_URL = "http://metadata.google.internal/computeMetadata/v1/instance/maintenance-event"
# If a step has not ended this long after a signal, another process is taken to be dead.
LEAVE_SECONDS = 120
_calls = itertools.count()


class Preemption:
    """Watches for a reason to stop. Use as a context manager around a run. Signals reach it in the main thread only.

    A signal asks for a stop after the current step; a second SIGINT exits at once (a second SIGTERM does not: some
    programs send it twice). A signal that is ignored, as SIGHUP under nohup, stays ignored. With several processes, one
    that is still in its step LEAVE_SECONDS later exits without saving.
    say: called with a line when a stop is requested. maintenance_url: "" to watch none.
    """

    def __init__(self, say: Callable[[str], None], maintenance_url: str = ""):
        self._say, self._url = say, maintenance_url
        self._asked = threading.Event()
        self._over = threading.Event()
        # With several processes JAX's own SIGTERM handler has them agree on the step at which all stop.
        self._several = jax.process_count() > 1
        handled = (signal.SIGINT, signal.SIGHUP) if self._several else (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
        self._signals = tuple(number for number in handled if signal.getsignal(number) is not signal.SIG_IGN)
        self._interrupted = False
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> "Preemption":
        if self._url:
            threading.Thread(target=self._watch_maintenance, daemon=True).start()
        if threading.current_thread() is not threading.main_thread():
            self._signals = ()
            return self
        # Python runs handlers between bytecodes, so not while a program compiles; the descriptor is written at once.
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._old_descriptor = signal.set_wakeup_fd(self._write.fileno())
        self._old_handlers = {number: signal.signal(number, lambda *_: None) for number in self._signals}
        threading.Thread(target=self._listen, daemon=True).start()
        if self._several:  # Python notes the signal here before JAX handles it
            self._noted, self._note = socket.socketpair()
            self._note.setblocking(False)  # one byte is enough; its reader may need Python's lock, held here
            faulthandler.register(signal.SIGTERM, file=self._note, all_threads=False, chain=True)
            threading.Thread(target=self._listen_for_sigterm, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        if self._deadline:
            self._deadline.cancel()
        if self._several and hasattr(self, "_note"):
            faulthandler.unregister(signal.SIGTERM)
            self._note.close()
        if self._signals:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._old_descriptor)
            self._write.close()

    def reached(self) -> bool:
        """Whether to save and stop now. The same on every process; all have to ask after each step."""
        if self._several:
            now = multihost_utils.reached_preemption_sync_point(next(_calls))
            if now and self._deadline:
                self._deadline.cancel()
            return now
        return self._asked.is_set()

    def _listen(self) -> None:
        with self._read:
            while number := self._read.recv(1):
                if number[0] in self._signals:
                    self._ask(signal.Signals(number[0]))

    def _listen_for_sigterm(self) -> None:
        with self._noted:
            while self._noted.recv(4096):
                self._stop(signal.SIGTERM.name)

    def _ask(self, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                os._exit(128 + number)
            self._interrupted = True
        self._stop(number.name)

    def _stop(self, reason: str) -> None:
        if not self._asked.is_set():
            self._asked.set()
            self._say(f"{reason}: stopping after this step is saved; press Ctrl-C twice to exit at once")
            if self._several:
                self._deadline = threading.Timer(LEAVE_SECONDS, self._give_up)
                self._deadline.daemon = True
                self._deadline.start()
                if reason != signal.SIGTERM.name:
                    os.kill(os.getpid(), signal.SIGTERM)

    def _give_up(self) -> None:
        self._say(f"the step did not end in {LEAVE_SECONDS} s: exiting; the run continues from its last checkpoint")
        os._exit(128 + signal.SIGTERM)

    def _watch_maintenance(self) -> None:
        request = urllib.request.Request(
            f"{self._url}?wait_for_change=true&timeout_sec=30", headers={"Metadata-Flavor": "Google"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the machine itself answers
        while not self._over.is_set():
            try:
                with direct.open(request, timeout=40) as answer:
                    coming = answer.read(64).decode().strip()
            except (OSError, http.client.HTTPException):
                self._over.wait(30)
                continue
            if coming not in ("NONE", ""):
                self._stop(f"maintenance is due ({coming})")
                return
