"""What a server answers that was stopped while others went on: never older than what was acknowledged."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from typing import Any

from harness import Cluster, api, connect, eventually, run


def test_a_leader_that_was_paused_answers_no_stale_read(cluster: Cluster) -> None:
    """Reads wait in its socket when it goes on; another leads since, and has acknowledged a newer message."""
    servers = {server.name: server for server in cluster.servers}

    async def play() -> None:
        client = await connect(cluster.urls)
        config = {"name": "R", "subjects": ["r"], "num_replicas": 3, "allow_direct": True}

        async def created() -> bool:
            await api(client, "STREAM.CREATE.R", config)
            return True

        async def publish(through: Any, text: str) -> int:
            return int(json.loads((await through.request("r", text.encode(), timeout=1)).data)["seq"])

        await eventually(created, 30, "stream created")
        for turn in range(3):
            await eventually(lambda turn=turn: publish(client, f"old {turn}"), 20, "a publish")  # type: ignore[misc]
            leader = str((await api(client, "STREAM.INFO.R"))["cluster"]["leader"])
            process = servers[leader].process
            assert process is not None
            there = await connect([servers[leader].url])
            others = await connect([server.url for name, server in servers.items() if name != leader])
            inbox = there.new_inbox()
            answers: list[dict[str, Any]] = []

            async def take(msg: Any, answers: list[dict[str, Any]] = answers) -> None:
                with contextlib.suppress(ValueError):
                    answers.append(json.loads(msg.data))

            await there.subscribe(inbox, cb=take)
            await there.flush()
            os.kill(process.pid, signal.SIGSTOP)
            try:
                last = await eventually(
                    lambda turn=turn, others=others: publish(others, f"new {turn}"), 20, "the next leader"
                )  # type: ignore[misc]
                body = json.dumps({"last_by_subj": "r"}).encode()
                for _ in range(40):
                    await there.publish("$JS.API.STREAM.MSG.GET.R", body, reply=inbox)
                await there._flush_pending()
            finally:
                os.kill(process.pid, signal.SIGCONT)
            await eventually(lambda: publish(client, "again"), 20, "all go on")
            await there.flush(timeout=10)
            for answer in answers:
                if "message" in answer:
                    text = base64.b64decode(answer["message"]["data"]).decode()
                    assert answer["message"]["seq"] >= last, f"{text} is older than what was acknowledged"
            await there.close()
            await others.close()
        await client.close()

    run(play(), 150)
