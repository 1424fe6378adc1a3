// What people do with the JavaScript client every day; any difference from what it expects ends it with an exception.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';
import net from 'node:net';

const [kubeconfig, modules] = process.argv.slice(2);
const k8s = createRequire(`${modules}/`)('@kubernetes/client-node');
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = 'javascript';
const LIMIT_MS = 40_000;

const within = (what, promise) => {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what}: too late`)), LIMIT_MS); });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const fails = async (code, promise) => {
    const error = await promise.then(() => assert.fail(`did not fail with ${code}`), (error) => error);
    assert.equal(error.code, code, String(error));
    return error;
};

const configMap = (name, data) => ({ metadata: { name, labels: { app: 'x' } }, data });

async function crud() {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
    const created = await core.createNamespacedConfigMap({ namespace, body: configMap('a', { k: '1' }) });
    assert.ok(created.metadata.creationTimestamp instanceof Date);
    await fails(409, core.createNamespacedConfigMap({ namespace, body: configMap('a') }));
    await fails(404, core.readNamespacedConfigMap({ namespace, name: 'none' }));
    created.data.k = '2';
    await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: created });
    await fails(409, core.replaceNamespacedConfigMap({ namespace, name: 'a', body: created }));
    for (let i = 0; i < 4; i++) await core.createNamespacedConfigMap({ namespace, body: configMap(`m${i}`) });
    const names = [];
    for (let token; token !== '';) {
        const page = await core.listNamespacedConfigMap({ namespace, limit: 2, _continue: token, labelSelector: 'app=x' });
        names.push(...page.items.map((item) => item.metadata.name));
        token = page.metadata._continue ?? '';
    }
    assert.deepEqual(names, ['a', 'm0', 'm1', 'm2', 'm3']);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'app=x' });
}

// The first events of a watch, until `count` have come.
const watched = (path, query, count) => within('a watch', new Promise((resolve, reject) => {
    const seen = [];
    let request;
    const take = (type, object) => {
        seen.push({ type, object });
        if (seen.length === count) request.then((controller) => { resolve(seen); controller.abort(); });
    };
    request = new k8s.Watch(config).watch(path, query, take, (error) => { if (seen.length < count) reject(error ?? new Error('ended')); });
}));

async function watches() {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const { metadata: { resourceVersion } } = await core.listNamespacedConfigMap({ namespace });
    await core.createNamespacedConfigMap({ namespace, body: configMap('w', { k: '1' }) });
    await core.deleteNamespacedConfigMap({ namespace, name: 'w' });
    const seen = await watched(path, { resourceVersion }, 2);
    assert.deepEqual(seen.map((e) => e.type), ['ADDED', 'DELETED']);
    const resumed = await watched(path, { resourceVersion: seen[0].object.metadata.resourceVersion }, 1);
    assert.deepEqual(resumed.map((e) => e.type), ['DELETED']);
    const informer = k8s.makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
    const added = new Promise((resolve) => informer.on('add', (map) => { if (map.metadata.name === 'informed') resolve(map); }));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: configMap('informed', { k: '1' }) });
    assert.equal((await within('the informer', added)).data.k, '1');
    await informer.stop();
}

async function apply() {
    const body = (data) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'ssa', namespace }, data });
    const as = (manager, data, force) => objects.patch(body(data), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
    const first = await as('one', { a: '1', b: '1' });
    const again = await as('one', { a: '1', b: '1' });
    assert.equal(first.metadata.resourceVersion, again.metadata.resourceVersion);
    const conflict = await fails(409, as('two', { a: '2' }));
    assert.match(JSON.stringify(conflict.body), /conflict with .*one.*data\.a/);
    await as('two', { a: '2' }, true);
    assert.deepEqual((await as('one', {})).data, { a: '2' });
}

async function pods() {
    const command = ['sh', '-c', 'mkdir /w; echo page > /w/index.html; echo begun; exec httpd -f -p 8080 -h /w'];
    const spec = { containers: [{ name: 'c', image: 'localhost/busybox:1', command }], terminationGracePeriodSeconds: 0 };
    await core.createNamespacedPod({ namespace, body: { metadata: { name: 'p' }, spec } });
    await within('the pod', new Promise((resolve, reject) => {
        const request = new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/pods`, {}, (_, pod) => {
            if (pod.status?.phase === 'Running') request.then((controller) => { resolve(); controller.abort(); });
        }, reject);
    }));
    let out = '', err = '';
    const stdout = new PassThrough().on('data', (chunk) => { out += chunk; });
    const stderr = new PassThrough().on('data', (chunk) => { err += chunk; });
    const stdin = new PassThrough();
    const status = within('exec', new Promise((resolve, reject) => {
        new k8s.Exec(config).exec(namespace, 'p', 'c', ['sh'], stdout, stderr, stdin, false, resolve).catch(reject);
    }));
    stdin.write('echo out; echo err >&2; exit 3\n');
    assert.equal((await status).details.causes[0].message, '3');
    assert.deepEqual([out, err], ['out\n', 'err\n']);
    assert.equal(await core.readNamespacedPodLog({ namespace, name: 'p', tailLines: 1 }), 'begun\n');
    const followed = within('the log', new Promise((resolve) => {
        const log = new PassThrough().on('data', (chunk) => resolve(String(chunk)));
        new k8s.Log(config).log(namespace, 'p', 'c', log, { follow: true }).then((controller) => followed.then(() => controller.abort()));
    }));
    assert.equal(await followed, 'begun\n');
    const forward = new k8s.PortForward(config);
    const server = net.createServer((socket) => forward.portForward(namespace, 'p', [8080], socket, null, socket));
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const answer = await within('the port', fetch(`http://127.0.0.1:${server.address().port}/`, { headers: { connection: 'close' } }).then((r) => r.text()));
    assert.equal(answer, 'page\n');
    server.close();
    await core.deleteNamespacedPod({ namespace, name: 'p' });
}

async function definitions() {
    const schema = { openAPIV3Schema: { type: 'object', properties: { spec: { type: 'object', properties: { size: { type: 'integer', minimum: 1 } } } } } };
    const group = 'javascript.example.com';
    const names = { plural: 'widgets', singular: 'widget', kind: 'Widget' };
    const versions = [{ name: 'v1', served: true, storage: true, schema }];
    await objects.create({ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: `widgets.${group}` }, spec: { group, scope: 'Namespaced', names, versions } });
    const custom = config.makeApiClient(k8s.CustomObjectsApi);
    const where = { group, version: 'v1', namespace, plural: 'widgets' };
    const widget = (name, size) => ({ apiVersion: `${group}/v1`, kind: 'Widget', metadata: { name }, spec: { size } });
    await custom.createNamespacedCustomObject({ ...where, body: widget('w', 2) });
    await fails(422, custom.createNamespacedCustomObject({ ...where, body: widget('x', 0) }));
    assert.deepEqual((await custom.listNamespacedCustomObject(where)).items.map((w) => w.spec.size), [2]);
    await custom.deleteNamespacedCustomObject({ ...where, name: 'w' });
}

async function scales() {
    const labels = { app: 'd' };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'localhost/busybox:1' }] } };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'd' }, spec: { replicas: 0, selector: { matchLabels: labels }, template } } });
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'd' });
    scale.spec.replicas = 1;
    // Its controller writes too: what it was read from does not matter.
    delete scale.metadata.resourceVersion;
    await apps.replaceNamespacedDeploymentScale({ namespace, name: 'd', body: scale });
    assert.equal((await apps.readNamespacedDeployment({ namespace, name: 'd' })).spec.replicas, 1);
    await apps.deleteNamespacedDeployment({ namespace, name: 'd', propagationPolicy: 'Background' });
}

for (const part of [crud, watches, apply, pods, definitions, scales]) {
    await part();
    console.log(part.name, 'is as it should be');
}
process.exit(0);
