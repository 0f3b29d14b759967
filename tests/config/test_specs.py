"""Specs of clusters: what is accepted, and what the one error says."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.config.cluster import IDLE_TIMEOUT_S, ClusterSpec
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.config.quantities import cpu_millis, cpu_text, memory_bytes
from dask_hpsearch.exceptions import SpecError
from dask_hpsearch.runs.launch.kubernetes_job import START_TIMEOUT_S

SPECS = Path(__file__).parents[2] / "cluster_specs"
EXAMPLES = sorted({*SPECS.glob("*.yaml")} - {*SPECS.glob("gke-*.yaml")})
LOGIN = "https://me:hunter2@example.org"
LEAST: dict[str, Any] = {
    "image": "localhost/x:1",
    "workers": {"cpu": 1, "memory": "1Gi", "slots": 1},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the least spec with one value put at a path."""
    spec = copy.deepcopy(LEAST)
    *parents, last = path.split(".")
    part = spec
    for parent in parents:
        part = part.setdefault(parent, {})
    part[last] = value
    return spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_specs(path: Path) -> None:
    """Every file that is offered as an example can be used."""
    assert load_spec(path).workers.slots >= 1


def test_a_small_spec_gets_defaults() -> None:
    """Image, and the size of a worker, are all that must be said."""
    spec = load_spec(LEAST)

    assert spec.workers.cpu == "1"
    assert (spec.workers.min, spec.workers.initial) == (0, 1)
    assert spec.service_account is None
    assert spec.idle_timeout == IDLE_TIMEOUT_S > START_TIMEOUT_S


def test_only_who_says_so_keeps_a_cluster_without_work() -> None:
    """It costs money, and may be forgotten."""
    assert load_spec(LEAST, idle_timeout=None).idle_timeout is None


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("image", "dask", ["image", "'dask'", ":latest", "digest"]),
        ("image", "dask:latest", ["latest", "another image"]),
        ("image", "registry:5000/dask", ["without a tag"]),
        ("image", "dask:1@sha256:12", ["not the name of an image"]),
        ("namespace", "Caps", ["namespace", "'Caps'", "lower-case"]),
        ("service_account", "default", ["service_account", "shared"]),
        ("workers.slots", 0, ["workers.slots", "0", "1 to 1024"]),
        ("workers.slots", "2", ["workers.slots", "'2'"]),
        ("workers.slots", True, ["workers.slots", "True"]),
        ("workers.cpu", "2 cores", ["workers.cpu", "'2 cores'", "500m"]),
        ("workers.cpu", True, ["workers.cpu", "True"]),
        ("workers.memory", "4GB", ["workers.memory", "'4GB'", "4Gi"]),
        ("workers.memory", 4096, ["workers.memory", "4096", "4Gi"]),
        ("workers.memory", "100Mi", ["100Mi", "too little", "512Mi"]),
        ("workers.nodes", "preemptible", ["'preemptible'", "'spot'", "'on-demand'"]),
        ("workers.min", 20, ["min 20 is greater than max 10"]),
        ("workers.initial", 11, ["initial 11 is not between min 0 and max 10"]),
        ("workers.privileged", True, ["workers.privileged is refused"]),
        ("privileged", False, ["privileged is refused"]),
        ("scheduler.hostPath", "/", ["scheduler.hostPath is refused"]),
        ("volumes", [{"hostPath": {"path": "/"}}], ["volumes is refused"]),
        ("workers.limits", {}, ["limits equal requests"]),
        ("workers.slot", 3, ["workers.slot is not a field", "did you mean 'slots'"]),
        ("environment", {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "x"}, ["sets it"]),
        ("environment", {"A": 1}, ["environment.A", "1", "quotes"]),
        ("secrets", ["a", "B_c"], ["secrets.1", "'B_c'"]),
        ("requirements", ["xgboost=2"], ["requirements.0", "'xgboost=2'"]),
        ("idle_timeout", 0, ["idle_timeout", "0", "1 or more"]),
        ("labels", {"dask.org/component": "x"}, ["reserved for Dask"]),
        ("labels", {"a": "b c"}, ["labels.a", "'b c'"]),
        (
            "nodes",
            {"spot": {"tolerations": [{"key": "a", "effect": "Never"}]}},
            ["nodes.spot.tolerations.0.effect", "'Never'", "NoSchedule"],
        ),
        ("workers", None, ["workers must be", "got None"]),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(
    path: str, value: Any, says: list[str]
) -> None:
    """The error has the field, its value, and what may stand there."""
    with pytest.raises(SpecError) as caught:
        load_spec(changed(path, value))

    assert len(caught.value.problems) == 1
    for words in says:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "requirements",
            ["six", f"x @ {LOGIN}/x.whl"],
            ["requirements.1", "name or password", "modules:"],
        ),
        ("requirements", ["x @ git+https://hunter2@example.org/x"], ["requirements.0"]),
        (
            "requirements",
            [f"--index-url {LOGIN}/simple"],
            ["requirements.0"],
        ),
        (
            "environment",
            {"A": "1", "DB_PASSWORD": "hunter2"},
            ["environment: DB_PASSWORD", "secrets:"],
        ),
        ("environment", {"URL": "redis://:hunter2@example.org"}, ["environment: URL"]),
        ("environment", {"MY_TOKEN": ["hunter2"]}, ["environment.MY_TOKEN"]),
        ("environment", ["DB_PASSWORD=hunter2"], ["environment"]),
        ("image", f"{LOGIN}/x:1", ["image"]),
    ],
)
def test_a_secret_is_refused_and_not_repeated(
    path: str, value: Any, says: list[str]
) -> None:
    """The error names the field and the way out."""
    with pytest.raises(SpecError) as caught:
        load_spec(changed(path, value))

    assert len(caught.value.problems) == 1
    for words in says:
        assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


def test_one_error_names_all_wrong_fields() -> None:
    """Nobody has to mend a spec line by line."""
    spec = {
        "image": "x",
        "namespce": "a",
        "workers": {"cpu": -1, "slots": 0, "max": 0, "hostPath": "/"},
        "scheduler": {"memory": "1Mi"},
    }

    with pytest.raises(SpecError) as caught:
        load_spec(spec)

    wrong = [problem.split()[0] for problem in caught.value.problems]
    assert sorted(wrong) == [
        "image",
        "namespce",
        "scheduler:",
        "workers.cpu",
        "workers.hostPath",
        "workers.max",
        "workers.memory",
        "workers.slots",
    ]


def test_a_field_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """YAML would keep the second and say nothing."""
    path = tmp_path / "spec.yaml"
    path.write_text("image: a:1\nimage: b:1\n")

    with pytest.raises(SpecError, match="image is given twice"):
        load_spec(path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_what_is_no_spec_is_told_by_the_files_name(tmp_path: Path, text: str) -> None:
    """Broken YAML, lists and empty files are errors like any other."""
    path = tmp_path / "spec.yaml"
    path.write_text(text)

    with pytest.raises(SpecError, match=r"spec\.yaml"):
        load_spec(path)


def test_a_missing_file_is_told() -> None:
    """The error names the path."""
    with pytest.raises(SpecError, match=r"nowhere\.yaml"):
        load_spec("nowhere.yaml")


def test_changes_take_the_place_of_a_files_fields() -> None:
    """An image is often known only when the cluster is made."""
    spec = load_spec(LEAST, image="localhost/y:2")

    assert spec.image == "localhost/y:2"
    assert load_spec(spec, namespace="a").image == "localhost/y:2"


def test_the_error_can_be_sent_to_another_process() -> None:
    """Errors cross process borders whole."""
    error = SpecError("a", ["b is wrong"])

    copied = pickle.loads(pickle.dumps(error))

    assert (str(copied), copied.problems) == (str(error), error.problems)


@given(millis=st.integers(1, 10**7))
def test_cpu_amounts_come_back(millis: int) -> None:
    """What is written for the API reads as the same amount."""
    assert cpu_millis(cpu_text(millis)) == millis


@given(number=st.integers(1, 2000), unit=st.sampled_from(["Ki", "Mi", "Gi", "M", "G"]))
def test_memory_units_grow_in_their_order(number: int, unit: str) -> None:
    """Binary units are larger than decimal ones, and amounts add up."""
    assert memory_bytes(f"{number}{unit}") == number * memory_bytes(f"1{unit}")
    assert memory_bytes("1Gi") > memory_bytes("1G") > memory_bytes("1Mi")


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    path=st.sampled_from(
        [*ClusterSpec.model_fields, "workers.slots", "workers.cpu", "scheduler.memory"]
    ),
)
def test_any_value_is_accepted_or_told(path: str, value: Any) -> None:
    """Whatever stands in a field, it is taken, or named in a SpecError."""
    try:
        spec = load_spec(changed(path, value))
    except SpecError as error:
        told = error.problems
    else:
        assert isinstance(spec, ClusterSpec)
        return
    field = path.partition(".")[0]
    assert all(field in problem for problem in told)


@given(
    slots=st.integers(1, 64),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)),
)
def test_worker_counts_are_in_order(slots: int, counts: tuple[int, int, int]) -> None:
    """Just the specs with min <= initial <= max are accepted."""
    least, initial, most = counts
    workers = {"min": least, "initial": initial, "max": most, "slots": slots}
    spec = LEAST | {"workers": LEAST["workers"] | workers}
    text = yaml.safe_dump(spec)

    accepted = True
    try:
        load_spec(yaml.safe_load(text))
    except SpecError:
        accepted = False

    assert accepted == (least <= initial <= most)
