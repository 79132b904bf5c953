"""The asset graph as users see it, against the snapshot beside this file.

After a wanted change: `python -m tests.test_definitions` writes the snapshot anew; read its diff.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from neurolake_dagster.definitions import defs

SNAPSHOT = Path(__file__).with_name("asset_graph.json")


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    graph = definitions.resolve_asset_graph()
    checks: dict[str, list[str]] = {}
    for key in sorted(graph.asset_check_keys):
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    assets = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        name = key.to_user_string()
        assets[name] = {
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
            "partitions": str(node.partitions_def) if node.partitions_def else None,
            "has_description": bool(node.description),
            "checks": checks.get(name, []),
        }
    repository = definitions.get_repository_def()
    return {
        "assets": assets,
        "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
        "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }


def test_the_asset_graph_is_the_snapshot() -> None:
    assert describe(defs) == json.loads(SNAPSHOT.read_text())


def test_every_check_blocks_what_lies_downstream() -> None:
    graph = defs.resolve_asset_graph()
    keys = list(graph.asset_check_keys)
    assert keys
    assert all(graph.get_check_spec(key).blocking for key in keys)


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(describe(defs), indent=2, ensure_ascii=False) + "\n")
