"""A ray cluster of several machines, all on 127.0.0.1, for tests: ``python tests/ray_cluster.py FOLDER MACHINES``.

Each machine has one core and, as without a common file system, a cache folder of its own. Prints the address. A line
``kill`` on stdin kills the last machine; the end of stdin ends the cluster.
"""

from __future__ import annotations

import os
import sys

os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    folder, count = sys.argv[1], int(sys.argv[2])
    common = {"object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}
    head = {"num_cpus": 0, "include_dashboard": False, "env_vars": {"OCD_BENCH_CACHE": f"{folder}/cache-head"}}
    cluster = Cluster(initialize_head=True, head_node_args={**common, **head})
    machines = [
        cluster.add_node(num_cpus=1, env_vars={"OCD_BENCH_CACHE": f"{folder}/cache{number}"}, **common)
        for number in range(count)
    ]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(machines.pop(), allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()
