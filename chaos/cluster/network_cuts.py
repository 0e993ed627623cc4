"""Lasting cuts between nodes and groups, made by a process inside a RabbitMQ node.

A node declares a deleted binding again within seconds. On a cluster of RabbitMQ nodes its queue is
exclusive to its connection, so that no other client may delete the binding, and has another name
after each reconnect. So the process deletes whatever binding leads from the group's exchange to a
queue of the node, and looks for one every few milliseconds. The bindings are the same on all
RabbitMQ nodes, so one process suffices.

Where each node is a user of its own, the binding leads to the node's inbox, an exchange, instead.
"""

from collections.abc import Awaitable, Callable
from string import Template

from broker.topology import Topology

PAUSE_MS = 5
"""Between two deletions of a binding. A message published in between may still be delivered."""

Evaluate = Callable[[str], Awaitable[object]]
"""Evaluates Erlang in the same RabbitMQ node each time; raises if the evaluation fails."""

# A record #binding{} is {binding, Source, Key, Destination, Arguments}, and a #resource{} is
# {resource, VirtualHost, Kind, Name}. To end a cut restores what it deleted; what belonged to a
# former connection can't be bound any more, which the broker only reports.
_BEGIN = Template("""
    Exchange = rabbit_misc:r(<<"/">>, exchange, <<"$exchange">>),
    IsOwn = fun(Binding) ->
        To = element(4, element(4, Binding)),
        string:prefix(<<To/binary, ".">>, <<"$destination.">>) =/= nomatch
    end,
    Sweep = fun() ->
        Found = lists:filter(IsOwn, rabbit_binding:list_for_source(Exchange)),
        [rabbit_binding:remove(Binding, <<"chaos">>) || Binding <- Found],
        Found
    end,
    [_ | _] = First = Sweep(),
    Cut = fun Cut(Deleted) ->
        receive
            heal -> [rabbit_binding:add(Binding, <<"chaos">>) || Binding <- Deleted]
        after $pause_ms -> Cut(lists:usort(Sweep() ++ Deleted))
        end
    end,
    register('$name', spawn(fun() -> Cut(First) end)).
""")

_END = Template("""
    Monitor = monitor(process, '$name'),
    '$name' ! heal,
    receive {'DOWN', Monitor, _, _, Reason} -> normal = Reason end.
""")


class Cuts:
    """The cuts of one cluster, each of which lasts until it is ended."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._names: set[str] = set()

    async def begin(self, topology: Topology, node: str, group: str) -> None:
        """Cut a node off from a group before this returns, unless it is cut off already.

        Raises what `evaluate` raises, also if nothing led from the group to the node.
        """
        name = _name(topology, node, group)
        if name in self._names:
            return
        await self._evaluate(
            _BEGIN.substitute(
                exchange=topology.group(group),
                destination=_queues_or_inbox(topology, node),
                pause_ms=PAUSE_MS,
                name=name,
            )
        )
        self._names.add(name)

    async def end(self, topology: Topology, node: str, group: str) -> None:
        """Bind again what was cut, if it was. Raises what `evaluate` raises if the cut had ended
        early.
        """
        await self._end(_name(topology, node, group))

    async def end_all(self) -> None:
        """End every cut; see `end`."""
        for name in sorted(self._names):
            await self._end(name)

    async def _end(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)
            await self._evaluate(_END.substitute(name=name))


def _queues_or_inbox(topology: Topology, node: str) -> str:
    return topology.inbox(node) if topology.own_users else topology.node_queue(node)


def _name(topology: Topology, node: str, group: str) -> str:
    return f"cut {topology.group(group)} {node}"
