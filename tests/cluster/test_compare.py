"""A record of one replica says something else, with every checksum in order: it is found, told and repaired."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from harness import Lab, ours, run, wait_for_log
from jscore_server.demo import Story, api, connect, ready

from tests.altered import rewrite

THREE = ["d1", "d2", "d3"]


@ours
@pytest.mark.timeout(100)
def test_an_altered_record_of_a_follower_is_found_and_taken_from_the_majority(lab: Lab) -> None:
    cluster = lab.hosts(THREE)
    cluster.start()
    story = Story(cluster)

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        await story.create(client)
        for number in range(40):
            await client.request("story.one", b"number %d." % number, timeout=5)
        await story.current(client, set(THREE), caught_up=True)
        leader = await story.leader(client)
        odd = cluster[next(name for name in THREE if name != leader)]
        agreed = [name for name in THREE if name != odd.name]
        watcher = await connect(cluster[leader].url)  # who leads tells of it
        told = await watcher.subscribe("$JS.EVENT.ADVISORY.STREAM.DIVERGED.>")
        await watcher.flush()
        assert odd.stop() == 0
        folder = next(odd.conf.parent.glob("store/jetstream/streams/*/*"))
        path = next(folder.glob("*.seg"))
        index = rewrite(path, b"number 20.", b"number 99.")
        odd.start()
        found = wait_for_log(odd, rf"records (\d+) to (\d+) differ in {odd.name} from those of {', '.join(agreed)}", 30)
        assert int(found[1]) <= index <= int(found[2])
        wait_for_log(odd, "its log is whole again", 20)
        advisory: dict[str, Any] = json.loads((await told.next_msg(10)).data)
        named = advisory["stream"], advisory["servers"], advisory["repaired_from"]
        assert named == (story.stream, [odd.name], agreed)
        assert advisory["first_index"] <= index <= advisory["last_index"]
        await story.current(client, set(THREE), caught_up=True)
        read = [(await api(client, f"STREAM.MSG.GET.{story.stream}", {"seq": seq}))["message"] for seq in (20, 21, 22)]
        assert [message["seq"] for message in read] == [20, 21, 22]
        await client.close()
        await watcher.close()
        assert odd.stop() == 0
        texts = re.findall(rb"number \d+\.", b"".join(p.read_bytes() for p in sorted(folder.glob("*.seg"))))
        assert texts == [b"number %d." % number for number in range(40)]

    run(play(), 90)
