"""Small transactions drawn to be as expensive as possible."""

import random
from typing import Any

PLACES = ["all", "all/x", "next", "next/one", "deep/" + "/".join("d" * 100), "b", "b/c", "b/c/d"]
REFUSALS = (400, 404, 409, 412, 413, 422, 503, 507)


def doubling(times: int) -> list[Any]:
    """Every three steps double the number of entries."""
    steps: list[Any] = [{"op": "put", "path": "all/a", "text": "x"}]
    for number in range(times):
        steps += [
            {"op": "copy", "source": "all", "target": f"next-{number}/one"},
            {"op": "move", "source": "all", "target": f"next-{number}/two"},
            {"op": "move", "source": f"next-{number}", "target": "all"},
        ]
    return steps


def hostile(dice: random.Random) -> list[Any]:
    """The steps of a transaction."""
    match dice.randrange(7):
        case 0:
            return doubling(dice.choice([1, 2, 4, 8, 20, 300]))
        case 1:
            return [
                {"op": "mkdir", "path": f"{number}/" + "/".join("m" * dice.choice([5, 100, 127]))}
                for number in range(dice.choice([3, 100, 1_000]))
            ]
        case 2:
            meta = {f"name-{number}": "v" * 400 for number in range(10)}
            path = "/".join(["m" * 200] * 15)
            return [
                {"op": "put", "path": f"{path}/{number}", "text": "", "meta": meta}
                for number in range(dice.choice([3, 300]))
            ]
        case 3:
            return [
                {"op": "copy", "source": "all", "target": f"copy/{dice.random()}"}
                for _ in range(dice.choice([1, 20, 999]))
            ]
        case 4:
            return [{"op": "rmdir", "path": "all", "recursive": True}, *doubling(20)]
        case 5:
            return [
                {"op": "rmdir", "path": dice.choice(PLACES), "recursive": dice.random() < 0.7},
                {"op": "put", "path": "all/a", "text": "x"},
            ]
        case _:
            return [_step(dice) for _ in range(dice.choice([1, 5, 50, 1_000]))]


def _step(dice: random.Random) -> dict[str, Any]:
    source, target = dice.choice(PLACES), dice.choice(PLACES)
    match dice.randrange(5):
        case 0:
            return {"op": "put", "path": target, "text": "x" * dice.choice([0, 1, 1_000])}
        case 1:
            return {"op": "mkdir", "path": target}
        case 2:
            return {"op": "rmdir", "path": source, "recursive": True}
        case 3:
            return {"op": "move", "source": source, "target": target, "overwrite": True}
        case _:
            return {"op": "copy", "source": source, "target": target, "overwrite": True}
