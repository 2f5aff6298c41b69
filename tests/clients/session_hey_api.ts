// What a person would write a client for, with the functions that @hey-api/openapi-ts makes of the document: node session_hey_api.js ADDRESS

import assert from "node:assert/strict";
import { createClient, type Client } from "./generated/hey_api/client/index.js";
import * as api from "./generated/hey_api/index.js";

const [, , baseUrl, salt] = process.argv;
const anybody = createClient({ baseUrl });

async function register(login: string): Promise<Client> {
    const { data, error } = await api.register({ client: anybody, body: { login, password: "correct horse battery" } });
    assert.ok(data, error?.detail);
    return createClient({ baseUrl, auth: data.access_token });
}

const client = await register(`hey-${salt}`);

// Create
const created = await api.createTask({
    client,
    body: { name: "Купить молоко", description: "Два литра", status: "new", completion_at: "02-10-2020" },
});
assert.equal(created.response?.status, 201);
assert.ok(created.data);
const milk: api.Task = created.data;
assert.equal(milk.completion_at, "02-10-2020");
for (const name of ["Купить хлеб", "Позвонить маме"]) {
    const { error } = await api.createTask({ client, body: { name, description: "", status: "planned" } });
    assert.equal(error, undefined);
}
const refused = await api.createTask({ client, body: { name: "", description: "", status: "new" } });
assert.deepEqual(refused.error?.errors?.map((fault) => fault.field), ["name"]);

// List with filters
async function names(query: api.ListTasksData["query"]): Promise<string[]> {
    const { data, error } = await api.listTasks({ client, query });
    assert.ok(data, error?.detail);
    return data.map((task) => task.name);
}
assert.deepEqual(await names({ status: "new,in_work", completion_at: "02-10-2020", q: "молоко" }), ["Купить молоко"]);
assert.deepEqual(await names({ completion_at: "none", sort: "-name" }), ["Позвонить маме", "Купить хлеб"]);
assert.deepEqual(await names({ completion_from: "01-10-2020", completion_to: "31-10-2020" }), ["Купить молоко"]);

// Change with If-Match
const tag = created.response.headers.get("ETag");
assert.ok(tag);
const change = { client, path: { id: milk.id }, headers: { "If-Match": tag } };
const changed = await api.updateTask({ ...change, body: { status: "completed" } });
assert.equal(changed.data?.status, "completed");
const late = await api.updateTask({ ...change, body: { completion_at: null } });
assert.equal(late.response?.status, 412);
assert.ok(late.error && "current" in late.error);
assert.equal(late.error.current.revision, changed.data.revision);
assert.deepEqual(late.error.changed, ["status"]);
const sentBack = await api.updateTask({ client, path: { id: milk.id }, body: { ...changed.data, name: "Купить кефир" } });
assert.equal(sentBack.data?.name, "Купить кефир");

// Follow pages
const pages: number[][] = [];
let cursor: string | undefined;
do {
    const { data, response } = await api.listTasks({ client, query: { limit: 2, cursor } });
    assert.ok(data);
    pages.push(data.map((task) => task.id));
    const [, next] = /<(.*)>; rel="next"/.exec(response?.headers.get("Link") ?? "") ?? [];
    cursor = next === undefined ? undefined : (new URL(next, baseUrl).searchParams.get("cursor") ?? undefined);
} while (cursor !== undefined);
assert.deepEqual(pages, [[1, 2], [3]]);

const log = await api.getTaskLog({ client, path: { id: milk.id } });
assert.deepEqual(log.data?.map(({ field, old, new: now }) => [field, old, now]), [
    ["status", "new", "completed"],
    ["name", "Купить молоко", "Купить кефир"],
]);

// Undo with dry run
const dry = await api.undo({ client, body: { since: 3, dry_run: true } });
assert.ok(dry.data, dry.error?.detail);
assert.deepEqual(dry.data.tasks.map((task) => [task.name, task.status]), [["Купить молоко", "new"]]);
assert.deepEqual(await names({ q: "кефир" }), ["Купить кефир"]);
const undone = await api.undo({ client, body: { since: 3, expected: dry.data.before } });
assert.equal(undone.data?.count, 1);
assert.deepEqual(await names({ q: "кефир" }), []);

// Follow the events, from a revision on
const stop = new AbortController();
const { stream } = await api.followEvents({ client, query: { since: 3 }, signal: stop.signal });
for await (const event of stream) {
    if ("name" in event) {
        assert.equal(event.id, milk.id);
        stop.abort();
        break;
    }
    assert.equal(typeof event.revision, "number");
}

// Export, and import what was exported
const taken = await api.exportAccount({ client });
assert.ok(taken.data);
const heir = await register(`hey-heir-${salt}`);
const imported = await api.importFile({ client: heir, body: taken.data, headers: { "Idempotency-Key": "once" } });
assert.equal(imported.data?.count, 3, imported.error?.detail);
const theirs = await api.listTasks({ client: heir });
assert.deepEqual(theirs.data, (await api.listTasks({ client })).data);

const nobody = await api.listTasks({ client: anybody });
assert.equal(nobody.error?.status, 401);
console.log("done");
