"""Two network namespaces as two machines: a cluster across them, and a capture of what goes over the wire."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from papyros.distributed.keys import default_key_file, find_key
from tests.distributed.conftest import group, launch, mark  # noqa: F401 - fixtures
from tests.distributed.programs import HOST_UP, MASTER_UP, PART
from tests.support import PATIENCE, wait_until

NEAR, FAR = "10.77.19.1", "10.77.19.2"

CAPTURE = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as file:
    print("captures", flush=True)
    while True:
        file.write(wire.recv(1 << 17))
"""

CLIENT = """
import sys
import papyros
from papyros.distributed import DistributedMaster

@papyros.job
def reverse(payload):
    return payload[::-1]

if __name__ == "__main__":
    group, names, payload = sys.argv[1:]
    with DistributedMaster(group, names, host_master=False, timeout=30) as master:
        for _ in range(20):
            master.addJob(reverse(payload))
        results = {job.result for job in master.processedJobs(timeout=30)}
        assert results == {payload[::-1]}, results
        print("all back, over", master._sender.line._sock.version())
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


class Machine:
    """A network namespace, with a configuration folder of its own."""

    def __init__(self, launch, name: str, device: str, home: Path) -> None:  # noqa: F811
        self._launch = launch
        self.name = name
        self.device = device
        self.home = home

    def run(self, *command: str, name: str):
        command = ("ip", "netns", "exec", self.name, *command)
        return self._launch(*command, name=name, XDG_CONFIG_HOME=str(self.home), PYTHONUNBUFFERED="1")


@pytest.fixture
def machines(launch, tmp_path):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("SKIPPED LOUDLY: only root can make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("SKIPPED LOUDLY: there is no program `ip` here (package iproute2)")
    tag = uuid.uuid4().hex[:6]
    near = Machine(launch, f"papyros-{tag}-a", f"pap{tag}a", tmp_path / "near")
    far = Machine(launch, f"papyros-{tag}-b", f"pap{tag}b", tmp_path / "far")
    try:
        try:
            for machine in (near, far):
                ip("netns", "add", machine.name)
            ip("link", "add", near.device, "type", "veth", "peer", "name", far.device)
            for machine, address in ((near, NEAR), (far, FAR)):
                ip("link", "set", machine.device, "netns", machine.name)
                ip("-n", machine.name, "addr", "add", f"{address}/24", "dev", machine.device)
                for device in ("lo", machine.device):
                    ip("-n", machine.name, "link", "set", device, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"SKIPPED LOUDLY: network namespaces cannot be made here: {error.stderr.decode().strip()}")
        yield near, far
        launch.end_all()
    finally:
        for machine in (near, far):
            subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)


def test_attack_11_a_cluster_across_two_machines_needs_a_copy_of_the_key_and_shows_nothing(
    machines,
    launch,  # noqa: F811
    group,  # noqa: F811
    tmp_path,
):
    near, far = machines
    captured = tmp_path / "captured"
    capture = near.run(sys.executable, "-c", CAPTURE, near.device, str(captured), name="capture")
    capture.wait_for("captures")
    ns = str(Path(sys.executable).parent / "pyro5-ns")
    near.run(ns, "--host", NEAR, "--nobc", name="names").wait_for("URI =")
    common = (f"--group={group}", f"--nameserver={NEAR}")
    master = near.run(*PART, *common, f"--host={NEAR}", name="master")
    master.wait_for(MASTER_UP)
    assert "a key was made" in master.text
    # The second machine without the key, with another one, with the right one; nothing else is done there.
    without = far.run(*PART, *common, "--slaves=2", name="without")
    assert without.ended(PATIENCE) == 1
    assert "there is no key on this machine yet" in without.text
    key = far.home / "papyros" / "key"
    assert not key.exists()
    find_key()  # that of the tests, which is none of these machines
    other = far.run(*PART, *common, "--slaves=1", f"--key-file={default_key_file()}", name="other")
    other.wait_for("have different keys")
    master.wait_for("have different keys")
    other.end()
    key.parent.mkdir(parents=True)
    shutil.copy2(near.home / "papyros" / "key", key)
    far.run(*PART, *common, "--slaves=2", name="host").wait_for(HOST_UP)
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    payload = f"known-payload-{uuid.uuid4().hex}"
    client = far.run(sys.executable, str(script), group, NEAR, payload, name="client")
    assert client.ended(PATIENCE) == 0, client.text
    assert "all back, over TLSv1.3" in client.text
    doctor = far.run(*PART, *common, "--doctor", name="doctor")
    assert doctor.ended(PATIENCE) == 0, doctor.text
    wire = wait_until(captured.read_bytes, "something on the wire")
    assert group.encode() in wire, "the questions to Pyro's name server can be read: so the capture works"
    assert len(wire) > 10_000
    secret = near.home / "papyros" / "key"
    for hidden in (payload, payload[::-1], "known-payload", "reverse", secret.read_text().strip(), "collect", "fetch"):
        assert hidden.encode() not in wire, hidden
