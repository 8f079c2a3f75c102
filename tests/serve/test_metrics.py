"""What `/metrics` counts, in one process and over several workers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.telemetry import metrics, metrics_folder

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
from serve.telemetry import metrics

number = int(sys.argv[1])
metrics.count_worker()
metrics.set_models([metrics.ServedModel("ner", "names", "2", True)])
for _ in range(number):
    metrics.observe_request("/ner", 200, 0.004)
metrics.observe_request(metrics.route("/nowhere/" + str(number)), 404, 40)
metrics.observe_stages({"read": 0.0002, "engine": 0.003})
metrics.observe_batch("names", "2", sentences=number, tokens=10 * number)
metrics.set_queue("names", sentences=number, tokens=5)
metrics.count_refusal("overloaded")
metrics.count_reload("loaded")
print("written", flush=True)
sys.stdin.read()
"""

SCRAPE = """
import sys
from serve.telemetry import metrics

sys.stdout.buffer.write(metrics.exposition("")[0])
"""


def worker(folder: Path, number: int) -> subprocess.Popen[str]:
    """A process that has written its metrics and lives until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(number)],
        cwd=ROOT,
        env=os.environ | {metrics_folder.VARIABLE: str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "written\n"
    return process


def scrape(folder: Path) -> dict[tuple[str, ...], float]:
    """What a process that counted nothing itself shows of the folder."""
    scraped = subprocess.run(
        [sys.executable, "-c", SCRAPE],
        cwd=ROOT,
        env=os.environ | {metrics_folder.VARIABLE: str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return samples(scraped.stdout)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The value of each sample, by its name and the values of its labels in the order of their names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def mark_dead(pid: int, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics_folder.VARIABLE, str(folder))
        metrics_folder.mark_dead(pid)


def test_counts_of_workers_add_up_and_a_dead_one_leaves_only_its_counts(
    tmp_path: Path,
) -> None:
    first, second = worker(tmp_path, 1), worker(tmp_path, 2)
    try:
        both = scrape(tmp_path)
        second.kill()
        second.wait()
        mark_dead(second.pid, tmp_path)
        one = scrape(tmp_path)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()

    counted = {
        ("serve_requests_total", "/ner", "200"): 3,
        ("serve_requests_total", "other", "404"): 2,
        ("serve_request_seconds_count", "/ner"): 3,
        ("serve_request_seconds_bucket", "0.003", "/ner"): 0,
        ("serve_request_seconds_bucket", "0.005", "/ner"): 3,
        ("serve_request_seconds_bucket", "+Inf", "/ner"): 3,
        ("serve_request_seconds_bucket", "30.0", "other"): 0,
        ("serve_request_seconds_sum", "other"): 80,
        ("serve_stage_seconds_count", "engine"): 2,
        ("serve_sentences_total", "names", "2"): 3,
        ("serve_tokens_total", "names", "2"): 30,
        ("serve_batch_sentences_bucket", "1.0", "names"): 1,
        ("serve_batch_tokens_sum", "names"): 30,
        ("serve_refusals_total", "overloaded"): 2,
        ("serve_reloads_total", "loaded"): 2,
        ("serve_model_info", "true", "names", "ner", "2"): 1,
    }
    assert both.items() >= counted.items()
    assert one.items() >= counted.items()
    live = [("serve_workers",), ("serve_queue_sentences", "names"), ("serve_queue_tokens", "names")]
    assert [both[name] for name in live] == [2, 3, 10]
    assert [one[name] for name in live] == [1, 1, 5]


def test_one_process_alone_shows_its_own_metrics_and_counts_on() -> None:
    before = samples(metrics.exposition("")[0].decode())
    metrics.observe_request("/parse", 200, 0.5)
    after = samples(metrics.exposition("")[0].decode())
    for name in (("serve_requests_total", "/parse", "200"), ("serve_request_seconds_count", "/parse")):
        assert after[name] - before.get(name, 0) == 1


def test_a_model_that_is_no_longer_served_becomes_zero() -> None:
    old = metrics.ServedModel("ner", "shown", "1", True)
    new = metrics.ServedModel("ner", "shown", "2", True)
    for served in (old, new):
        metrics.set_models([served])
    found = samples(metrics.exposition("")[0].decode())
    assert found["serve_model_info", "true", "shown", "ner", "1"] == 0
    assert found["serve_model_info", "true", "shown", "ner", "2"] == 1


@pytest.mark.parametrize(
    ("path", "label"),
    [("/ner", "/ner"), ("/ner/stream", "/ner/stream"), ("/", "/"), ("/page/app.js", "/page"),
     ("/ner/x", "other"), ("", "other")],
)  # fmt: skip
def test_a_path_is_one_of_few_labels(path: str, label: str) -> None:
    assert metrics.route(path) == label
    assert metrics.route(label) == label


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text"),
        ("application/openmetrics-text;version=new", "text/plain"),
    ],
)
def test_the_accept_header_chooses_the_format_and_none_is_a_failure(accept: str, media_type: str) -> None:
    metrics.count_refusal("not_ready")
    body, content_type = metrics.exposition(accept)
    assert content_type.partition(";")[0] == media_type
    assert body.endswith(b"# EOF\n") == (media_type != "text/plain")
    assert b'serve_refusals_total{code="not_ready"}' in body


def prepare(folder: Path, **variables: str) -> Path:
    """The folder that a process of its own prepares; by the time it is known that process has ended."""
    prepared = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys\n"
            "from pathlib import Path\n"
            "from serve.telemetry.metrics_folder import prepare_folder\n"
            "folder = prepare_folder(Path(sys.argv[1]))\n"
            "assert os.environ['PROMETHEUS_MULTIPROC_DIR'] == str(folder)\n"
            "assert 'prometheus_client' not in sys.modules\n"
            "if os.fork() == 0:\n"
            "    sys.exit(0)\n"
            "os.wait()\n"
            "assert list(folder.iterdir()) == []\n"
            "print(oct(folder.stat().st_mode & 0o777), folder)\n",
            str(folder),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != metrics_folder.VARIABLE}
        | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert prepared.returncode == 0, prepared.stderr
    mode, path = prepared.stdout.split()
    if not variables:
        assert mode == "0o700"
    return Path(path)


def test_the_folder_is_private_outlives_workers_and_goes_with_the_master(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    assert folder.parent == tmp_path
    assert not folder.exists()


def test_without_a_folder_in_memory_it_is_among_the_temporary_files(tmp_path: Path) -> None:
    assert prepare(tmp_path / "missing").parent != tmp_path


def test_a_folder_that_the_environment_names_is_emptied_of_metrics_and_stays(tmp_path: Path) -> None:
    named = tmp_path / "metrics"
    named.mkdir()
    (named / "counter_1.db").write_bytes(b"old")
    assert prepare(tmp_path, **{metrics_folder.VARIABLE: str(named)}) == named
    assert list(named.iterdir()) == []
