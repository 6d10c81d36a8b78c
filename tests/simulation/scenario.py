"""One seed, from the first job to the last: what goes wrong, and what must be so in the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from papyros.entries import Entry
from tests.simulation.client import Client
from tests.simulation.host import Host
from tests.simulation.master import Master, Network
from tests.simulation.stories import Stories
from tests.simulation.world import BrokenRule, World

__all__ = ["Scenario", "simulate"]

#: After the last fault everything has to be done within the time that its jobs take, and so many seconds.
DRAIN_SECONDS = 60.0

#: A call of the last moments with faults may take so long, there and back; its slave host may have nothing to do then.
LATE_SECONDS = 2.0

#: No slave is idle for longer while a job waits, when nothing is wrong.
IDLE_SECONDS = 1.0


class Scenario:
    """A group, and what happens to it."""

    def __init__(self, seed: int, tracing: bool = False) -> None:
        self.seed = seed
        self.world = world = World(seed, tracing)
        self.dice = dice = world.dice
        self.lease = dice.choice((1.0, 2.0, 5.0))
        self.grace = dice.choice((12.0, 30.0))
        self.network = Network(world, dice.choice((0.0, 0.0, 0.02, 0.1, 0.3)), dice.choice((0.0005, 0.005, 0.05)))
        self.network.zombies = min(1.0, self.lease / 2)
        self.stories = Stories(dice, families=dice.random() < 0.25)
        self.masters: list[Master] = []
        self.hosts: list[Host] = []
        self.clients: list[Client] = []
        self.faults = dice.choice((0, 0, 1, 2, 4, 8))
        self.until = dice.choice((2.0, 5.0, 10.0))
        self.calm = False
        self._under_way = 0  # so many changes of masters

    def play(self) -> None:
        """Let it all happen."""
        world, dice = self.world, self.dice
        self._new_master()
        for _ in range(dice.choice((1, 1, 2, 3))):
            world.after(dice.random(), self._new_host)
        for _ in range(dice.choice((1, 1, 2, 3))):
            world.after(dice.random() * self.until / 2, self._new_client)
        for _ in range(self.faults):
            world.after(dice.random() * self.until, dice.choice(self._all_faults()))
        world.run(self.until)
        self._calm_down()
        self._drain()
        self._settle()
        self._say_goodbye()

    # Who is there -----------------------------------------------------------------------

    def _new_master(self) -> None:
        known = self.network.registered
        if known is not None and known.alive and not known.closed and not known.paused:
            return
        charged, dismissed = self.stories.charged, self._dismissed
        master = Master(self.world, f"master-{len(self.masters)}", self.lease, self.grace, charged, dismissed)
        self.masters.append(master)
        self.network.registered = master
        self.world.trace(master.name, "is registered")

    def _dismissed(self, master: Master, key: str, held: list[Entry]) -> None:
        host = next(host for host in self.hosts if host.name == key)
        good_network = not self.network.unreliable and not self.network.was_down and self.lease > 1.0
        if good_network and host.alive and not host.was_paused and not host._draining and host._master is master:
            raise BrokenRule(f"{key} was given up, though nothing was wrong with it")
        for entry in held:
            self.stories.excuse(str(entry.session.key), entry.number)

    def _new_host(self) -> None:
        dice = self.dice
        slaves, ahead = dice.choice((1, 1, 2, 4)), dice.choice((1, 2, 3))
        self.hosts.append(
            Host(self.world, f"host-{len(self.hosts)}", self.network, self.stories, slaves, ahead),
        )

    def _new_client(self) -> None:
        dice = self.dice
        jobs, pace = dice.choice((1, 5, 10, 20, 40)), dice.choice((0.001, 0.03, 0.2, 0.7))
        hurry, bound = dice.choice((0.01, 0.1, 0.5)), dice.choice((None, None, 1, 5))
        cancels = dice.choice((0.0, 0.0, 0.02, 0.1))
        name = f"client-{len(self.clients)}"
        self.clients.append(
            Client(self.world, name, self.network, self.stories, jobs, pace, hurry, bound, cancels),
        )

    def _active_hosts(self) -> list[Host]:
        return [host for host in self.hosts if host.alive]

    # What goes wrong --------------------------------------------------------------------

    def _all_faults(self) -> list[Callable[[], None]]:
        return [
            self._kill_slave,
            self._crash_host,
            self._pause_host,
            self._drain_host,
            self._crash_master,
            self._pause_master,
            self._replace_paused_master,
            self._crash_client,
            self._pause_client,
            self._lose_network,
            self._break_lines,
        ]

    def _kill_slave(self) -> None:
        for host in self._active_hosts()[:1]:
            if not host.paused:
                host.kill_a_slave()

    def _crash_host(self) -> None:
        if hosts := self._active_hosts():
            self.dice.choice(hosts).crash()

    def _pause_host(self) -> None:
        if hosts := self._active_hosts():
            host = self.dice.choice(hosts)
            host.pause()
            self.world.after(self.dice.uniform(0.1, 3.0) * self.lease, host.resume)

    def _drain_host(self) -> None:
        hosts = [host for host in self._active_hosts() if not host.paused and not host._draining]
        if hosts:
            self.dice.choice(hosts).drain()

    def _master(self) -> Master:
        return self.masters[-1]

    def _crash_master(self) -> None:
        if self._master().alive:
            self._master().crash()
            self._soon(self.dice.uniform(0.0, 3.0), self._new_master)

    def _pause_master(self) -> None:
        master = self._master()
        master.pause()
        self.world.after(self.dice.uniform(0.1, 3.0) * self.lease, master.resume)

    def _replace_paused_master(self) -> None:
        master = self._master()
        master.pause()
        self._soon(3.0, self._new_master)
        self._soon(3.0 + self.dice.uniform(0.1, 3.0), partial(self._give_way, master))

    def _soon(self, seconds: float, change: Callable[[], None]) -> None:
        self._under_way += 1

        def happen() -> None:
            self._under_way -= 1
            change()

        self.world.after(seconds, happen)

    def _give_way(self, master: Master) -> None:
        master.resume()
        if master is not self._master() and master.alive and not master.closed:
            # It finds out when it looks after its registration.
            master.later(self.dice.uniform(0.0, 2.0), master.close)

    def _crash_client(self) -> None:
        if self.clients:
            client = self.dice.choice(self.clients)
            if client.alive and len(self.clients) > 1:
                client.crash()

    def _pause_client(self) -> None:
        if self.clients:
            client = self.dice.choice(self.clients)
            client.pause()
            self.world.after(self.dice.uniform(0.1, 2.0) * self.grace, client.resume)

    def _lose_network(self) -> None:
        self.network.down = self.network.was_down = True
        self.world.trace("network", "is gone")
        self.world.after(self.dice.choice((0.3, 1.0, 3.0)) * self.lease, self._restore_network)

    def _restore_network(self) -> None:
        self.network.down = False
        self.world.trace("network", "is back")

    def _break_lines(self) -> None:
        for line in list(self._master().lines):
            line.break_off("all lines are cut")

    # The end ----------------------------------------------------------------------------

    def _calm_down(self) -> None:
        self.world.trace("world", "no more faults")
        self.calm = True
        self.network.down = False
        self.network.trouble = 0.0
        for master in self.masters[:-1]:
            self._give_way(master)
        for actor in (self._master(), *self.hosts, *self.clients):
            actor.resume()
        self.world.run(self.world.now + 10.0, lambda: not self._under_way)
        for master in self.masters[:-1]:
            self._give_way(master)
        for actor in (self._master(), *self.hosts, *self.clients):
            actor.resume()
        self._new_master()
        if not any(host.alive and not host._draining for host in self.hosts):
            self._new_host()
        if not self.clients:
            self._new_client()

    def _limit(self) -> float:
        """By when all jobs that there are have to be done."""
        work = sum(min(story.seconds, 30.0) * (1 + story.terms.retries) for story in self.stories.all.values())
        adding = sum(client._jobs * (client._hurry + client._pace * 4) for client in self.clients)
        return self.world.now + DRAIN_SECONDS + self.lease + 3 * work + 3 * adding

    def _drain(self) -> None:
        limit, told = self._limit(), len(self.stories.all)
        self._idle: dict[str, tuple[float, int]] = {}
        self.world.after(LATE_SECONDS + 0.25, self._watch_idle)
        done = lambda: all(client.finished for client in self.clients if client.alive)  # noqa: E731
        while not self.world.run(limit, done):
            if len(self.stories.all) > told:
                limit, told = self._limit(), len(self.stories.all)  # jobs added jobs
                continue
            stuck = {client.name: list(client.session.entries.values()) for client in self.clients if client.alive}
            raise BrokenRule(f"these jobs were not processed by {limit:.1f}: {stuck}")

    def _watch_idle(self) -> None:
        """Look whether slaves have nothing to do while jobs wait, with the master or behind others."""
        desk = self._master().desk
        waiting = any(session.assignable() for session in desk.ledger.sessions.values())
        # Runs of jobs that others have been given since are not seen by the master, nor what waits behind these.
        known = {host.name: desk.hosts[host.name].holder.ahead for host in self.hosts if host.name in desk.hosts}
        waiting = waiting or any(host.alive and host.ahead and known.get(host.name, 0) for host in self.hosts)
        for host in self.hosts:
            idle = host.alive and host.idle and not host._draining and host.name in desk.hosts
            since, starts = self._idle.get(host.name, (self.world.now, host.starts))
            if not (waiting and idle and starts == host.starts):
                self._idle.pop(host.name, None)
            elif self.world.now - since > IDLE_SECONDS:
                raise BrokenRule(f"since {since:.1f} slaves of {host.name} have nothing to do while jobs wait")
            else:
                self._idle[host.name] = since, starts
        if not all(client.finished for client in self.clients if client.alive):
            self.world.after(0.25, self._watch_idle)

    def _settle(self) -> None:
        """Once all jobs are done, nothing of them stays in memory."""
        limit = self.world.now + self.grace + self.lease * 2 + 60.0
        master = self._master()
        done = lambda: not master.leftovers() and not any(client.unsettled for client in self.clients if client.alive)  # noqa: E731
        if not self.world.run(limit, self._every_second(done)):
            raise BrokenRule(f"the master remembers {master.leftovers()}")
        for client in self.clients:
            if client.alive and (left := client.leftovers()):
                raise BrokenRule(f"{client.name} remembers {left}")
            client.check()

    def _say_goodbye(self) -> None:
        desk = self._master().desk
        for client in self.clients:
            if client.alive:
                client.leave()
        for host in self.hosts:
            if host.alive and not host._draining:
                host.drain()
        limit = self.world.now + self.grace + self.lease + 60.0
        left = self._master().leftovers
        if not self.world.run(limit, self._every_second(lambda: not (desk.clients or desk.hosts or left()))):
            raise BrokenRule(f"in the end there are still {list(desk.clients)}, {list(desk.hosts)} and {left()}")

    def _every_second(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """A look at a condition that costs something, once a second."""
        last = [-1.0]

        def look() -> bool:
            if self.world.now - last[0] < 1.0:
                return False
            last[0] = self.world.now
            return condition()

        return look


def simulate(seed: int, tracing: bool = False) -> Scenario:
    """Play one seed; raise `BrokenRule`, or whatever error the master comes up with."""
    scenario = Scenario(seed, tracing)
    scenario.play()
    return scenario
