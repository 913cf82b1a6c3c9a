"""kill -9 of the receiver under load: whatever was answered 200 is in the database."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import requests

from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_every_200_is_found_in_the_database_after_kill_9(tmp_path: Path) -> None:
    dice = random.Random(5)
    with Stack(tmp_path, fast=True) as stack:
        stack.home.mkdir(parents=True)
        acknowledged: list[int] = []
        over = threading.Event()
        numbers = iter(range(1, 1_000_000))
        lock = threading.Lock()

        def send() -> None:
            with requests.Session() as session:
                while not over.is_set():
                    with lock:
                        number = next(numbers)
                    body = f"leads%5Bupdate%5D%5B0%5D%5Bid%5D={number}&account%5Bid%5D=1"
                    try:
                        answer = session.post(stack.hook_url, data=body, headers=FORM, timeout=5)
                    except requests.RequestException:
                        over.wait(0.05)
                        continue
                    if answer.status_code == 200:
                        acknowledged.append(number)

        threads = [threading.Thread(target=send) for _ in range(8)]
        for round_number in range(4):
            receiver = stack.spawn("receiver", "receiver")
            wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
            if round_number == 0:
                for thread in threads:
                    thread.start()
            enough = len(acknowledged) + dice.randrange(50, 300)
            wait_until(lambda enough=enough: len(acknowledged) >= enough, 30, "load", 0.001)
            os.kill(receiver.pid, signal.SIGKILL)
            receiver.wait()
        over.set()
        for thread in threads:
            thread.join()
        with sqlite3.connect(stack.home / "sync.db") as connection:
            stored = {key for (key,) in connection.execute("select key from events")}
            due = {key for (key,) in connection.execute("select key from due")}
        wanted = {f"lead:{number}" for number in acknowledged}
        assert len(wanted) > 200
        assert wanted <= stored
        assert wanted <= due


def test_a_stopped_receiver_finishes_what_it_has_begun(tmp_path: Path) -> None:
    with Stack(tmp_path, fast=True) as stack:
        stack.home.mkdir(parents=True)
        receiver = stack.spawn("receiver", "receiver")
        wait_until(lambda: stack.answers(f"{stack.receiver}/readyz"), 60, "the receiver")
        began = time.monotonic()
        receiver.send_signal(signal.SIGTERM)
        receiver.wait(10)
        assert time.monotonic() - began < 6
