// What a person would write a client for, with the types that openapi-typescript makes of the document: node session_openapi_fetch.js ADDRESS

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/schema.js";

type Task = components["schemas"]["Task"];

const [, , baseUrl, salt] = process.argv;
const anybody = createClient<paths>({ baseUrl });

async function register(login: string) {
    const { data, error } = await anybody.POST("/register", { body: { login, password: "correct horse battery" } });
    assert.ok(data, error?.detail);
    return createClient<paths>({ baseUrl, headers: { Authorization: `${data.token_type} ${data.access_token}` } });
}

const alice = await register(`fetch-${salt}`);

// Create
const created = await alice.POST("/task", {
    body: { name: "Купить молоко", description: "Два литра", status: "new", completion_at: "02-10-2020" },
});
assert.equal(created.response.status, 201);
assert.ok(created.data);
const milk: Task = created.data;
assert.equal(milk.completion_at, "02-10-2020");
for (const name of ["Купить хлеб", "Позвонить маме"]) {
    const { error } = await alice.POST("/task", { body: { name, description: "", status: "planned" } });
    assert.equal(error, undefined);
}
const refused = await alice.POST("/task", { body: { name: "", description: "", status: "new" } });
assert.deepEqual(refused.error?.errors?.map((fault) => fault.field), ["name"]);

// List with filters
async function names(query: paths["/task"]["get"]["parameters"]["query"]): Promise<string[]> {
    const { data, error } = await alice.GET("/task", { params: { query } });
    assert.ok(data, error?.detail);
    return data.map((task) => task.name);
}
assert.deepEqual(await names({ status: "new,in_work", completion_at: "02-10-2020", q: "молоко" }), ["Купить молоко"]);
assert.deepEqual(await names({ completion_at: "none", sort: "-name" }), ["Позвонить маме", "Купить хлеб"]);
assert.deepEqual(await names({ completion_from: "01-10-2020", completion_to: "31-10-2020" }), ["Купить молоко"]);

// Change with If-Match
const tag = created.response.headers.get("ETag");
assert.ok(tag);
const change = { params: { path: { id: milk.id }, header: { "If-Match": tag } } };
const changed = await alice.PATCH("/task/{id}", { ...change, body: { status: "completed" } });
assert.equal(changed.data?.status, "completed");
const late = await alice.PATCH("/task/{id}", { ...change, body: { completion_at: null } });
assert.equal(late.response.status, 412);
assert.ok(late.error && "current" in late.error);
assert.equal(late.error.current.revision, changed.data.revision);
assert.deepEqual(late.error.changed, ["status"]);
const sentBack = await alice.PATCH("/task/{id}", { params: { path: { id: milk.id } }, body: { ...changed.data, name: "Купить кефир" } });
assert.equal(sentBack.data?.name, "Купить кефир");

// Follow pages
const pages: number[][] = [];
let cursor: string | undefined;
do {
    const { data, response } = await alice.GET("/task", { params: { query: { limit: 2, cursor } } });
    assert.ok(data);
    pages.push(data.map((task) => task.id));
    const [, next] = /<(.*)>; rel="next"/.exec(response.headers.get("Link") ?? "") ?? [];
    cursor = next === undefined ? undefined : (new URL(next, baseUrl).searchParams.get("cursor") ?? undefined);
} while (cursor !== undefined);
assert.deepEqual(pages, [[1, 2], [3]]);

const log = await alice.GET("/task/{id}/log", { params: { path: { id: milk.id } } });
assert.deepEqual(log.data?.map(({ field, old, new: now }) => [field, old, now]), [
    ["status", "new", "completed"],
    ["name", "Купить молоко", "Купить кефир"],
]);

// Undo with dry run
const dry = await alice.POST("/task/undo", { body: { since: 3, dry_run: true } });
assert.ok(dry.data, dry.error?.detail);
assert.deepEqual(dry.data.tasks.map((task) => [task.name, task.status]), [["Купить молоко", "new"]]);
assert.deepEqual(await names({ q: "кефир" }), ["Купить кефир"]);
const undone = await alice.POST("/task/undo", { body: { since: 3, expected: dry.data.before } });
assert.equal(undone.data?.count, 1);
assert.deepEqual(await names({ q: "кефир" }), []);

// Follow the events, from a revision on
const stop = new AbortController();
const { data: stream } = await alice.GET("/task/events", { params: { query: { since: 3 } }, parseAs: "stream", signal: stop.signal });
assert.ok(stream);
let received = "";
const decoder = new TextDecoder();
for (const reader = stream.getReader(); !received.includes("event: task"); ) {
    const { value, done } = await reader.read();
    assert.ok(!done);
    received += decoder.decode(value, { stream: true });
}
stop.abort();
assert.match(received, /^id: 3\n/m);

// Export, and import what was exported
const taken = await alice.GET("/export");
assert.ok(taken.data);
const heir = await register(`fetch-heir-${salt}`);
const imported = await heir.POST("/import", { body: taken.data, params: { header: { "Idempotency-Key": "once" } } });
assert.equal(imported.data?.count, 3, imported.error?.detail);
const theirs = await heir.GET("/task");
assert.deepEqual(theirs.data, (await alice.GET("/task")).data);

const nobody = await anybody.GET("/task");
assert.equal(nobody.error?.status, 401);
console.log("done");
