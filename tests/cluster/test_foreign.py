"""A server that comes with the data of another cluster has no part in this one, and changes nothing of it."""

from __future__ import annotations

import shutil

from harness import Lab, api, connect, eventually, ours, run, wait_for, wait_for_log
from monitoring_client import Three, page

pytestmark = ours


def test_a_server_with_another_clusters_data_takes_no_part(lab: Lab) -> None:
    three, other = Three(lab), Three(lab, home="other-")
    three.wait()
    other.wait()

    async def fill(url: str, name: str) -> None:
        client = await connect(url)
        config = {"name": name, "subjects": [name.lower()], "num_replicas": 3, "storage": "file"}

        async def stored() -> bool:
            await api(client, f"STREAM.CREATE.{name}", config)
            return bool((await client.jetstream(timeout=5).publish(name.lower(), b"x")).seq)

        await eventually(stored, 20, f"stream {name}")
        await client.close()

    run(fill(three.url, "HERE"))
    run(fill(other.url, "THERE"))
    for server in other.servers:
        server.stop()
    third = three.servers[2]
    third.stop()
    stores = [server.conf.parent / "store" for server in (third, other.servers[2])]
    shutil.rmtree(stores[0])
    shutil.copytree(stores[1], stores[0])
    third.start()
    for server in three.servers[:2]:
        wait_for_log(server, "n3 holds the data of another JetStream cluster and takes no part in this one", 30)
    wait_for_log(third, "n[12] holds the data of another JetStream cluster")
    run(fill(three.url, "MORE"))

    def unchanged() -> bool:
        meta = [page(port, "/clusterz")["meta"] for port in three.http[:2]]
        return all(m["voters"] == ["n1", "n2", "n3"] and m["term"] == meta[0]["term"] for m in meta)

    wait_for(unchanged, 10, "the same meta group")

    async def only_ours() -> None:
        client = await connect([server.url for server in three.servers[:2]])
        names = (await api(client, "STREAM.NAMES"))["streams"]
        assert sorted(names) == ["HERE", "MORE"]
        await client.close()

    run(only_ours())
