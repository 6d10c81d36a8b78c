"""Which master it is, by one word."""

from __future__ import annotations

import argparse

import pytest

import papyros
from tests.contract.jobs_for_tests import double
from tests.support import PATIENCE


@pytest.fixture
def opened():
    masters = []

    def open_master(*args, **options):
        masters.append(papyros.open_master(*args, **options))
        return masters[-1]

    yield open_master
    for master in masters:
        master.close()


@pytest.mark.parametrize(
    ("spec", "kind", "slaves"),
    [
        ("serial", papyros.SingleThreadedMaster, 1),
        ("threads:3", papyros.MultiThreadedMaster, 3),
        ("processes:2", papyros.MultiProcessMaster, 2),
        (" threads ", papyros.MultiThreadedMaster, None),
    ],
)
def test_a_word_is_a_master(opened, spec, kind, slaves):
    master = opened(spec, max_waiting=5)
    assert type(master) is kind
    assert slaves is None or master._holder.slaves == slaves
    master.addJob(double(4))
    assert master.popProcessedJob(PATIENCE).result == 8


def test_a_cluster_is_found_by_its_address(opened):
    with papyros.LocalCluster(1) as cluster:
        name = f"pyro://{cluster.group}@{cluster.nameserver}" if hasattr(cluster, "group") else None
        name = name or f"pyro://@{cluster.nameserver}"
        master = opened(name, host_master=False, timeout=PATIENCE)
        assert type(master) is papyros.DistributedMaster
        master.addJob(double(4))
        assert master.popProcessedJob(PATIENCE).result == 8
        master.close()


def test_the_environment_says_what_the_program_does_not(opened, monkeypatch):
    monkeypatch.setenv("PAPYROS_MASTER", "threads:1")
    assert type(opened()) is papyros.MultiThreadedMaster
    assert type(opened("serial")) is papyros.SingleThreadedMaster
    monkeypatch.delenv("PAPYROS_MASTER")
    assert type(opened()) is papyros.MultiProcessMaster
    monkeypatch.setenv("PAPYROS_MASTER", "nowhere")
    with pytest.raises(papyros.ConfigError, match="from PAPYROS_MASTER"):
        papyros.open_master()


@pytest.mark.parametrize("spec", ["", "nowhere", "thread:4", "http://host:1", "serial:2", "mpi"])
def test_an_unknown_word_lists_those_there_are(spec):
    with pytest.raises(papyros.ConfigError) as caught:
        papyros.open_master(spec)
    for word in ("serial", "threads[:N]", "processes[:N]", "pyro://", "dask://", "ray://"):
        assert word in str(caught.value)


BAD_ENDS = [
    *["threads:", "threads:0", "threads:-1", "threads:" + "9" * 5000, "processes:many", "processes:1000001"],
    "threads:\u0663",
    *[
        "pyro://group@",
        "pyro://group@host:xx",
        "pyro://group@host:0",
        "pyro://-@host",
        "pyro://two words",
        "pyro://\ud800",
    ],
    *["dask://", "dask://host", "dask://host:70000", "dask://host:1/way", "ray://host:xx", "ray://:1", "ray://a b:1"],
]


def test_an_address_without_a_group_is_refused_with_the_form_that_is_right():
    with pytest.raises(papyros.ConfigError, match="like 'pyro://@HOST:PORT'"):
        papyros.open_master("pyro://lab1:9090")


@pytest.mark.parametrize("spec", BAD_ENDS)
def test_a_word_that_is_not_completed_is_refused_on_the_command_line_too(spec, capsys):
    with pytest.raises(papyros.ConfigError, match="like") as caught:
        papyros.open_master(spec)
    assert len(str(caught.value)) < 500
    parser = argparse.ArgumentParser()
    papyros.add_master_option(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--master={spec}"])
    assert "like" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec", ["pyro://", "pyro://lab", "pyro://lab@host", "pyro://@[::1]:9090", "ray://", "dask://h:1"]
)
def test_a_word_that_is_complete_is_accepted_on_the_command_line(spec):
    parser = argparse.ArgumentParser()
    papyros.add_master_option(parser)
    assert parser.parse_args([f"--master={spec}"]).master == spec


def test_what_is_no_word_is_refused():
    with pytest.raises(TypeError):
        papyros.open_master(3)


def test_a_wrong_word_of_the_environment_or_the_program_is_told_early(monkeypatch, capsys):
    monkeypatch.setenv("PAPYROS_MASTER", "pyro://lab@host:xx")
    parser = argparse.ArgumentParser()
    papyros.add_master_option(parser)
    assert parser.parse_args(["--master=serial"]).master == "serial"
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "(from PAPYROS_MASTER)" in capsys.readouterr().err
    monkeypatch.setenv("PAPYROS_MASTER", "threads:2")
    parser = argparse.ArgumentParser()
    papyros.add_master_option(parser)
    assert parser.parse_args([]).master == "threads:2"
    with pytest.raises(papyros.ConfigError):
        papyros.add_master_option(argparse.ArgumentParser(), default="nowhere")


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    for word in ("dask", "ray"):
        monkeypatch.delitem(__import__("sys").modules, f"papyros.engines.{word}", raising=False)
        with pytest.raises(ImportError, match=rf"pip install 'papyros\[{word}\]'"):
            papyros.open_master(f"{word}://localhost:1")


def test_a_command_line_has_the_option_for_one_line(opened, capsys):
    parser = argparse.ArgumentParser()
    papyros.add_master_option(parser)
    assert parser.parse_args([]).master is None
    assert type(opened(parser.parse_args(["--master", "threads:2"]).master)) is papyros.MultiThreadedMaster
    with pytest.raises(SystemExit):
        parser.parse_args(["--master=nowhere"])
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "threads[:N]" in told
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "dask://HOST:PORT" in capsys.readouterr().out
    zoned = argparse.ArgumentParser()
    papyros.add_master_option(zoned, default="pyro://lab@[fe80::1%eth0]:9090")
    assert "[fe80::1%eth0]:9090" in zoned.format_help()
    other = argparse.ArgumentParser()
    papyros.add_master_option(other, "--where", default="serial")
    assert other.parse_args([]).where == "serial"
