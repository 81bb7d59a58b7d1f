"""Two of three servers are enough; one refuses and core NATS goes on; the second's return heals."""

from __future__ import annotations

import json

from harness import ApiError, Cluster, api, connect, eventually, ready, run
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer


def test_two_of_three_work_one_refuses_and_the_return_of_the_second_heals(cluster: Cluster) -> None:
    first, second, third = cluster.servers

    async def story() -> None:
        client = await connect(first.url)

        async def publish(text: str) -> int:
            answer = json.loads((await client.request("q.x", text.encode(), timeout=2)).data)
            if "error" in answer:
                raise ApiError(answer["error"])
            return int(answer["seq"])

        async def created() -> bool:
            config = {"name": "Q", "subjects": ["q.>"], "num_replicas": 3, "storage": "file"}
            await api(client, "STREAM.CREATE.Q", config)
            return True

        await eventually(created, 30, "stream created")
        assert await publish("with three") == 1

        third.kill()
        await eventually(lambda: publish("with two"), 30, "a publish with two of three")
        assert (await api(client, "STREAM.INFO.Q"))["state"]["messages"] >= 2

        async def fresh() -> bool:
            config = {"name": "Q2", "subjects": ["q2.>"], "num_replicas": 1, "storage": "file"}
            await api(client, "STREAM.CREATE.Q2", config)
            return True

        await eventually(fresh, 30, "a stream created with two of three")

        second.kill()

        async def refused() -> bool:
            try:
                await api(client, "STREAM.NAMES", seconds=2)
            except ApiError as err:
                return (err.code, err.err_code) == (503, 10008)
            return False

        await eventually(refused, 30, "10008 from the API without a quorum")

        # What a publisher sees: 503 at once, or no answer while the old leader still hopes. Never an acknowledgement.
        async def unacknowledged() -> bool:
            try:
                await publish("with one")
            except NoRespondersError:
                return True
            except (TimeoutError, NoAnswer):
                return False
            raise AssertionError("acknowledged without a quorum")

        await eventually(unacknowledged, 30, "503 no responders for a publish without a quorum")

        # Core NATS does not ask JetStream.
        listener = await client.subscribe("plain.*")
        await client.publish("plain.news", b"still here")
        assert (await listener.next_msg(timeout=5)).data == b"still here"

        second.start()
        await ready([first, second])
        healed = await eventually(lambda: publish("with two again"), 30, "a publish after the second's return")
        messages = (await api(client, "STREAM.INFO.Q"))["state"]["messages"]
        assert messages >= healed >= 3
        await client.close()

    run(story(), 200)
