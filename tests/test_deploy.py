"""Image, manifests and operations page against each other and against the server that they run."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from serve import __version__
from serve.app import create_app
from serve.problems import KINDS
from serve.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
VERSIONS = ("1.30", "1.37")
MASTER_SECONDS = 5
"""What gunicorn's master gives its workers beyond their own time to drain."""
BASE = sorted(path.stem for path in (KUBERNETES / "base").glob("*.yaml") if path.stem != "kustomization")


@cache
def manifest(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((KUBERNETES / path).read_text(encoding="utf-8"))
    return content


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(deployment)["containers"]
    result: dict[str, Any] = only
    return result


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(deployment).get("env", ())}


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"^ +(SERVE_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))


def instruction(name: str) -> str:
    (found,) = re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)
    return str(found)


def copied() -> set[str]:
    """What the image takes from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def rendered(folder: Path) -> dict[str, dict[str, Any]]:
    """Objects by kind, as kustomize puts them together."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed: overlays are not put together")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


def variables() -> dict[str, Any]:
    """Each setting's environment variable with its field, the limits' ones last."""
    fields = {f"SERVE_{name.upper()}": field for name, field in Settings.model_fields.items()}
    limits = fields.pop("SERVE_LIMITS").default
    assert isinstance(limits, BaseModel)
    nested = type(limits).model_fields.items()
    return fields | {f"SERVE_LIMITS__{name.upper()}": field for name, field in nested}


def defaults() -> dict[str, str]:
    """The default of each setting, as an environment variable has it; nothing where there is none."""
    values = {name: field.default for name, field in variables().items()}
    shown = {
        name: json.dumps(value) if isinstance(value, bool) else str(value) for name, value in values.items()
    }
    return {name: "" if values[name] in (None, {}) else f"`{text}`" for name, text in shown.items()}


# In a process of its own: what is counted here must not be in what other tests read.
COUNT_EVERYTHING = """
from serve.telemetry import metrics
metrics.observe_request("/ner", 200, 0.1)
metrics.observe_stages({"engine": 0.1})
metrics.observe_batch("ner", "1", 1, 5)
metrics.set_queue("ner", 1, 5)
metrics.set_models([metrics.ServedModel("ner", "ner", "1", True)])
metrics.count_refusal("overloaded")
metrics.count_reload("changed")
metrics.count_worker()
print(metrics.exposition("")[0].decode())
"""


@cache
def exposed_metrics() -> dict[str, set[str]]:
    """The labels of each series that `/metrics` shows."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_EVERYTHING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    samples = [sample for family in text_string_to_metric_families(done.stdout) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


def metric_table() -> dict[str, set[str]]:
    """The labels that the page gives to each metric."""
    rows = re.findall(r"^\| (`serve_\S+`(?:, `serve_\S+`)*) \| ([a-z, ]*)\|", PAGE, re.MULTILINE)
    return {
        name: set(re.findall(r"[a-z]+", labels))
        for names, labels in rows
        for name in re.findall(r"serve_\w+", names)
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BASE)
def test_every_object_fits_the_schema_of_kubernetes(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(f"base/{name}.yaml"), version, strict=True)


def test_the_schema_check_refuses_a_field_that_kubernetes_does_not_know() -> None:
    service = manifest("base/service.yaml")
    misspelt = service | {"spec": service["spec"] | {"sessionAfinity": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="sessionAfinity"):
        kubernetes_validate.validate(misspelt, VERSIONS[-1], strict=True)


def test_every_file_of_a_folder_is_in_its_kustomization() -> None:
    for path in KUBERNETES.glob("*/kustomization.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = {name for name in content.get("resources", ()) if name.endswith(".yaml")}
        named |= {patch["path"] for patch in content.get("patches", ())}
        assert named == {file.name for file in path.parent.glob("*.yaml")} - {path.name}, path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("resource", "components"),
    [
        ("base", []),
        ("gpu", []),
        ("base", ["api-keys"]),
        ("gpu", ["api-keys", "with-bundles"]),
    ],
)
def test_overlays_and_components_fit_together(
    tmp_path: Path, resource: str, components: list[str], version: str
) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    own = {
        "resources": [f"../kubernetes/{resource}"],
        "components": [f"../kubernetes/{name}" for name in components],
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(json.dumps(own), encoding="utf-8")
    objects = rendered(tmp_path / "own")
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)
    deployment = objects["Deployment"]
    mounted = {mount["name"] for mount in container(deployment)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod(deployment)["volumes"]}
    asked = "api-keys" in components
    assert ("api-keys" in mounted, "SERVE_API_KEYS" in environment(deployment)) == (asked, asked)
    outside = "with-bundles" not in components
    assert ("bundles" in mounted, "PersistentVolumeClaim" in objects) == (outside, outside)
    gpu = container(deployment)["resources"]["limits"].get("nvidia.com/gpu")
    assert (environment(deployment).get("SERVE_DEVICE"), gpu) == (
        ("cuda", "1") if resource == "gpu" else (None, None)
    )


def test_the_ports_of_image_pod_probes_and_service_are_one() -> None:
    deployment = manifest("base/deployment.yaml")
    (port,) = container(deployment)["ports"]
    assert str(port["containerPort"]) == instruction("EXPOSE") == image_environment()["SERVE_PORT"]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    for kind in ("startup", "readiness", "liveness"):
        assert container(deployment)[f"{kind}Probe"]["httpGet"]["port"] == port["name"]
    assert [each["targetPort"] for each in manifest("base/service.yaml")["spec"]["ports"]] == [port["name"]]
    (rule,) = manifest("base/networkpolicy.yaml")["spec"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == [port["name"]]


def test_probed_and_scraped_paths_exist() -> None:
    deployment = manifest("base/deployment.yaml")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    paths = {container(deployment)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")}
    assert paths == {"/readyz"}
    paths |= {container(deployment)["livenessProbe"]["httpGet"]["path"], annotations["prometheus.io/path"]}
    assert paths <= {getattr(route, "path", None) for route in create_app(Settings()).routes}


def test_everything_selects_the_pods_by_their_labels() -> None:
    deployment = manifest("base/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        manifest("base/service.yaml")["spec"]["selector"],
        manifest("base/poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        manifest("base/networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [
        spread["labelSelector"]["matchLabels"] for spread in pod(deployment)["topologySpreadConstraints"]
    ]
    assert all(selector == labels for selector in selectors)
    target = manifest("base/horizontalpodautoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


@pytest.mark.parametrize("folder", ["base", "gpu", "api-keys", "with-bundles"])
def test_every_variable_of_the_manifests_is_a_setting_that_takes_its_value(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    given = image_environment() | environment(manifest(f"{folder}/deployment.yaml"))
    assert given.keys() <= variables().keys()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    Settings()


def test_a_pod_has_time_to_drain() -> None:
    deployment = manifest("base/deployment.yaml")
    given = environment(deployment)
    needed = float(given["SERVE_DRAIN_SECONDS"]) + float(given["SERVE_GRACEFUL_SECONDS"])
    assert pod(deployment)["terminationGracePeriodSeconds"] > needed + MASTER_SECONDS


def test_the_image_s_command_leaves_time_to_drain() -> None:
    (timeout,) = re.findall(r"--stop-timeout (\d+)", DOCKERFILE)
    defaults = Settings.model_fields
    needed = defaults["drain_seconds"].default + defaults["graceful_seconds"].default
    assert int(timeout) > needed + MASTER_SECONDS


def test_a_pod_can_write_to_its_temporary_folder_only_and_is_not_root() -> None:
    deployment = manifest("base/deployment.yaml")
    user = pod(deployment)["securityContext"]
    assert user["runAsNonRoot"] is True
    assert instruction("USER") == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(deployment)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount for mount in container(deployment)["volumeMounts"] if not mount.get("readOnly")]
    assert [mount["mountPath"] for mount in writable] == ["/tmp"]
    assert pod(deployment)["automountServiceAccountToken"] is False


def test_a_rollout_never_serves_with_fewer_pods_and_no_replicas_fight_the_autoscaler() -> None:
    spec = manifest("base/deployment.yaml")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in spec
    assert manifest("base/horizontalpodautoscaler.yaml")["spec"]["minReplicas"] >= 2


def test_whole_cores_of_a_pod_are_guaranteed_and_make_its_workers() -> None:
    resources = container(manifest("base/deployment.yaml"))["resources"]
    assert resources["requests"] == resources["limits"]
    assert int(resources["limits"]["cpu"]) >= 1


def test_image_label_and_manifests_have_the_version_of_the_server() -> None:
    (label,) = re.findall(r'image\.version="([^"]+)"', DOCKERFILE)
    image = container(manifest("base/deployment.yaml"))["image"]
    (overlay,) = manifest("gpu/kustomization.yaml")["images"]
    assert (label, image, overlay["newTag"]) == (
        __version__, f"structural-kd:{__version__}", f"{__version__}-gpu"
    )  # fmt: skip


def test_the_image_carries_the_rooms_that_serving_needs_and_the_build_may_read_them() -> None:
    assert copied() == {
        "structural_kd", "serve", "bundles", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"
    }  # fmt: skip
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied()


def test_the_extras_that_the_image_installs_exist() -> None:
    (extras,) = re.findall(r'"\.\[(.+?)\]"', DOCKERFILE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {*extras.replace("${DEVICE}", "cpu,gpu").split(",")}
    assert {"serve"} <= installed <= project["optional-dependencies"].keys()


def test_bases_of_the_image_are_exact_versions() -> None:
    base = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(base) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base[0])
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    stages = set(re.findall(r" AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert bases - stages == {"${BASE}"}


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint did not come with the extra `dev` on this platform")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """The port of a server, and a list with the status that its /livez answers."""
    statuses = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[0] if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(server.server_port), statuses
        server.shutdown()
        thread.join()


def test_the_health_check_passes_a_server_that_is_live_and_no_other(
    answering: tuple[str, list[int]],
) -> None:
    port, statuses = answering
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    command = [sys.executable, *json.loads(check)[1:]]

    def status(port: str) -> int:
        return subprocess.run(
            command, env=os.environ | {"SERVE_PORT": port}, stderr=subprocess.DEVNULL, check=False
        ).returncode

    assert status(port) == 0
    statuses[0] = 503
    assert status(port) == 1
    assert status("1") == 1


def test_the_page_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(SERVE_\w+)` \| (.*?) ?\| ", PAGE, re.MULTILINE)
    assert dict(rows) == defaults()


def test_every_variable_that_the_page_names_is_a_setting() -> None:
    named = {name for name in re.findall(r"SERVE_[A-Z_]+", PAGE) if not name.startswith("SERVE_DEFAULTS__")}
    assert named <= variables().keys()


def test_the_page_s_table_of_metrics_is_that_of_the_server() -> None:
    families: dict[str, set[str]] = {}
    for name, labels in exposed_metrics().items():
        families.setdefault(re.sub(r"_(bucket|sum|count)$", "", name), set()).update(labels - {"le"})
    assert metric_table() == families


def test_the_page_s_queries_use_series_and_labels_that_there_are() -> None:
    expressions = re.findall(r"\b(serve_[a-z_]+)(?:\{([^}]*)\})?(?=[\[ )=]|$)", PAGE, re.MULTILINE)
    assert len(expressions) > 10
    for name, labels in expressions:
        assert set(re.findall(r"(\w+)[=!]~?\"", labels)) <= exposed_metrics()[name], name


def test_the_page_s_codes_are_those_of_the_server() -> None:
    rows = re.findall(r"\| `([a-z_]+)` \| (\d{3}) \|", PAGE)
    assert rows
    assert rows == [(code, str(KINDS[code][0])) for code, _ in rows]


def test_the_alerts_on_the_page_are_rules() -> None:
    (block,) = re.findall(r"^```yaml\n(groups:.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (group,) = yaml.safe_load(block)["groups"]
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary"}
