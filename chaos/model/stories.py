"""The steps of a counterexample as lines of a story."""

from chaos.model.membership import named
from chaos.model.search import ModelStep


def tell(names: str, step: ModelStep) -> str:
    """The step as a line of a story; `names` are those of the disks."""
    match step:
        case ("promises" | "grants" as what, int(i), b, v, int(votes), former):
            slots = [str(s) for s in range(votes.bit_length()) if votes >> s & 1]
            late = f", having accepted {' '.join(slots)} under {former}" if slots else ""
            lease = " a lease" if what == "grants" else ""
            return f"{names[i]} {what} ballot {b}{lease}, version {v}{late}"
        case ("proposes", b, s, int(value)):
            return f"ballot {b} proposes {named(value)} for slot {s}"
        case ("chosen", b, s, int(value), int(quorum)):
            voters = ",".join(n for i, n in enumerate(names) if quorum >> i & 1)
            return f"{{{voters}}} accept {named(value)} for slot {s} under ballot {b}"
        case ("learns", b, through):
            return f"ballot {b} learns the chosen prefix through {through}"
        case ("hears mark", b, mark):
            return f"ballot {b} learns that slots up to {mark} are durable"
        case ("stands", b, low, through):
            return f"ballot {b} stands, knowing slots up to {through}, phase 1 from slot {low}"
        case ("leads", b, low):
            return f"ballot {b} leads from slot {low}"
        case ("skips", b, to):
            return f"ballot {b} goes on at slot {to}: those below are truncated"
        case ("serves", b):
            return f"ballot {b} grants read leases"
        case ("durable", mark):
            return f"slots up to {mark} are durable"
        case ("lets go", int(i), b):
            return f"{names[i]}'s lease for ballot {b} ends"
        case ("truncates", int(i), mark):
            return f"{names[i]} truncates slots up to {mark}"
        case ("restarts", int(i)):
            return f"{names[i]} restarts"
    return " ".join(map(str, step))
