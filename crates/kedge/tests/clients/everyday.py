"""What people do with the Python client every day; any difference from what it expects ends it with an exception."""

import json
import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config(config_file=sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()
extensions, custom = client.ApiextensionsV1Api(), client.CustomObjectsApi()
NS = "python"
LIMIT_SECONDS = 40


def fails(status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, (error.status, error.body)
        return error
    raise AssertionError(f"{call} did not fail with {status}")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": "x"}), data=data)


def objects():
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NS)))
    created = core.create_namespaced_config_map(NS, config_map("a", k="1"))
    assert created.metadata.uid and created.metadata.creation_timestamp.tzinfo
    fails(409, core.create_namespaced_config_map, NS, config_map("a"))
    fails(404, core.read_namespaced_config_map, "none", NS)
    created.data["k"] = "2"
    replaced = core.replace_namespaced_config_map("a", NS, created)
    created.data["k"] = "3"
    fails(409, core.replace_namespaced_config_map, "a", NS, created)
    patched = core.patch_namespaced_config_map("a", NS, {"data": {"l": "1"}})
    assert patched.data == {"k": "2", "l": "1"} and patched.metadata.resource_version != replaced.metadata.resource_version
    core.patch_namespaced_config_map("a", NS, [{"op": "remove", "path": "/data/l"}])
    core.create_namespaced_config_map(NS, config_map("dry"), dry_run="All")
    fails(404, core.read_namespaced_config_map, "dry", NS)
    for i in range(5):
        core.create_namespaced_config_map(NS, config_map(f"m{i}"))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(NS, limit=2, _continue=token, label_selector="app=x")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == ["a", "m0", "m1", "m2", "m3", "m4"], names
    fails(400, core.list_namespaced_config_map, NS, field_selector="spec.x=y")
    core.delete_collection_namespaced_config_map(NS, label_selector="app=x", field_selector="metadata.name=m4")
    core.delete_namespaced_config_map("m3", NS, body=client.V1DeleteOptions(propagation_policy="Background"))


def watches():
    version = core.list_namespaced_config_map(NS).metadata.resource_version
    core.create_namespaced_config_map(NS, config_map("w", k="1"))
    core.patch_namespaced_config_map("w", NS, {"data": {"k": "2"}})
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, NS, resource_version=version, timeout_seconds=LIMIT_SECONDS):
        seen.append((event["type"], event["object"].data["k"]))
        if len(seen) == 2:
            watcher.stop()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2")], seen
    # On from where it stopped: nothing twice, nothing lost.
    core.delete_namespaced_config_map("w", NS)
    resumed = watch.Watch()
    for event in resumed.stream(core.list_namespaced_config_map, NS, resource_version=watcher.resource_version, timeout_seconds=LIMIT_SECONDS):
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "w"), event
        resumed.stop()
    ended = list(watch.Watch().stream(core.list_namespaced_config_map, NS, label_selector="none=none", timeout_seconds=1))
    assert ended == [], ended


def server_side_apply():
    dyn = dynamic.DynamicClient(client.ApiClient())
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"a": "1", "b": "1"}}
    first = maps.server_side_apply(body=body, name="ssa", namespace=NS, field_manager="one")
    again = maps.server_side_apply(body=body, name="ssa", namespace=NS, field_manager="one")
    assert first.metadata.resourceVersion == again.metadata.resourceVersion, "nothing has changed"
    other = {**body, "data": {"a": "2"}}
    conflict = fails(409, maps.server_side_apply, body=other, name="ssa", namespace=NS, field_manager="two")
    assert json.loads(conflict.body)["message"].endswith("conflict with \"one\": .data.a"), conflict.body
    maps.server_side_apply(body=other, name="ssa", namespace=NS, field_manager="two", force_conflicts=True)
    left = maps.server_side_apply(body={**body, "data": {}}, name="ssa", namespace=NS, field_manager="one")
    assert left.data.to_dict() == {"a": "2"}, left


def pods():
    command = ["sh", "-c", "mkdir /w; echo page > /w/index.html; echo begun; exec httpd -f -p 8080 -h /w"]
    container = client.V1Container(name="c", image="localhost/busybox:1", command=command)
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
    core.create_namespaced_pod(NS, client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=spec))
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, NS, field_selector="metadata.name=p", timeout_seconds=LIMIT_SECONDS):
        if event["object"].status.phase == "Running":
            watcher.stop()
    assert core.read_namespaced_pod("p", NS).status.phase == "Running"
    out = stream(core.connect_get_namespaced_pod_exec, "p", NS, command=["echo", "inside"], stdout=True, stderr=True, stdin=False, tty=False)
    assert out == "inside\n", out
    session = stream(core.connect_get_namespaced_pod_exec, "p", NS, command=["sh"], stdout=True, stderr=True, stdin=True, tty=False, _preload_content=False)
    session.write_stdin("echo out; echo err >&2; exit 3\n")
    session.run_forever(timeout=LIMIT_SECONDS)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out\n", "err\n", 3)
    assert core.read_namespaced_pod_log("p", NS, tail_lines=1) == "begun\n"
    for line in watch.Watch().stream(core.read_namespaced_pod_log, "p", NS, follow=True):
        assert line == "begun", line
        break
    forward = portforward(core.connect_get_namespaced_pod_portforward, "p", NS, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(LIMIT_SECONDS)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := socket.recv(4096):
        answer += chunk
    assert answer.endswith(b"page\n"), answer
    gone = threading.Thread(target=core.delete_namespaced_pod, args=("p", NS))
    gone.start()
    for event in watch.Watch().stream(core.list_namespaced_pod, NS, timeout_seconds=LIMIT_SECONDS):
        if event["type"] == "DELETED":
            break
    gone.join()


def deployments():
    container = client.V1Container(name="c", image="localhost/busybox:1", command=["sleep", "1000"])
    labels = {"app": "d"}
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0))
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
    apps.create_namespaced_deployment(NS, client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec))
    scale = apps.read_namespaced_deployment_scale("d", NS)
    scale.spec.replicas = 2
    # Its controller writes too: what it was read from does not matter.
    scale.metadata.resource_version = None
    apps.replace_namespaced_deployment_scale("d", NS, scale)
    deadline = time.monotonic() + LIMIT_SECONDS
    for event in watch.Watch().stream(apps.list_namespaced_deployment, NS, timeout_seconds=LIMIT_SECONDS):
        if event["object"].status.ready_replicas == 2:
            break
    assert time.monotonic() < deadline, "the deployment was never ready"
    apps.delete_namespaced_deployment("d", NS, propagation_policy="Foreground")


def custom_resources():
    schema = client.V1JSONSchemaProps(type="object", properties={"spec": client.V1JSONSchemaProps(type="object", properties={"size": client.V1JSONSchemaProps(type="integer", minimum=1)})})
    version = client.V1CustomResourceDefinitionVersion(name="v1", served=True, storage=True, schema=client.V1CustomResourceValidation(open_apiv3_schema=schema))
    names = client.V1CustomResourceDefinitionNames(plural="widgets", singular="widget", kind="Widget")
    spec = client.V1CustomResourceDefinitionSpec(group="python.example.com", scope="Namespaced", names=names, versions=[version])
    extensions.create_custom_resource_definition(client.V1CustomResourceDefinition(metadata=client.V1ObjectMeta(name="widgets.python.example.com"), spec=spec))
    for event in watch.Watch().stream(extensions.list_custom_resource_definition, field_selector="metadata.name=widgets.python.example.com", timeout_seconds=LIMIT_SECONDS):
        conditions = event["object"].status.conditions if event["object"].status else None
        if any(c.type == "Established" and c.status == "True" for c in conditions or []):
            break
    where = ("python.example.com", "v1", NS, "widgets")
    body = {"apiVersion": "python.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 2}}
    custom.create_namespaced_custom_object(*where, body)
    fails(422, custom.create_namespaced_custom_object, *where, {**body, "metadata": {"name": "x"}, "spec": {"size": 0}})
    custom.patch_namespaced_custom_object(*where, "w", {"spec": {"size": 3}})
    assert [w["spec"]["size"] for w in custom.list_namespaced_custom_object(*where)["items"]] == [3]
    custom.delete_namespaced_custom_object(*where, "w")
    extensions.delete_custom_resource_definition("widgets.python.example.com")


assert client.VersionApi().get_code().major == "1"
for part in (objects, watches, server_side_apply, pods, deployments, custom_resources):
    part()
    print(part.__name__, "is as it should be", flush=True)
