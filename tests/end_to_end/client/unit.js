// The rules of daemun.js, one case each, against doors that die, hang, lie and come back. Run by node; exits 1 if one fails.
"use strict";
const assert = require("assert"), fs = require("fs"), http = require("http"), vm = require("vm");
const { Door, CLIENT } = require("./doors.js");
const daemun = require(CLIENT);

const TIMEOUT = 300; // of an attempt, milliseconds
const PATIENCE = 3000;
const SIZE_MAX = 4095;

const cases = [];
const rule = (name, play) => cases.push({ name, play });

// ---- what a case has: doors, clients, a browser's things, a clock to turn

class Scene {
  constructor() {
    this.doors = [];
    this.clients = [];
    this.changed = {};
  }

  async open(...names) {
    const doors = [];
    for (const name of names) doors.push(await Door.open(name));
    this.doors.push(...doors);
    const list = listOf(doors.map(door => door.listed()), { doors: doors.map(door => door.url) });
    doors.forEach(door => { door.list = list; });
    return doors;
  }

  client(options) {
    const d = daemun({ timeout: TIMEOUT, watch: false, ...options });
    this.clients.push(d);
    return d;
  }

  /** A client that has this list from the first of the doors. */
  async with(list, options) {
    const door = this.doors[0] || (await this.open("source"))[0];
    door.list = list;
    const d = this.client({ doors: [door.url], ttl: 3600, ...options });
    await d.refresh();
    return d;
  }

  /** Gives the world a global for the length of the case. */
  set(name, value) {
    if (!(name in this.changed)) this.changed[name] = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }

  /** A page of a door: what the client uses of a browser. */
  page(door, embedded) {
    const heard = {};
    this.set("location", { origin: door.url.slice(0, -1) });
    this.set("document", {
      hidden: false,
      getElementById: id => (id === "daemun-servers" && embedded ? { textContent: embedded } : null),
    });
    this.set("addEventListener", (name, act) => { heard[name] = act; });
    this.set("localStorage", {});
    return {
      say: name => heard[name](),
      hide: hidden => { document.hidden = hidden; heard.visibilitychange(); },
    };
  }

  /** The polls that are planned: milliseconds, by timer. The requests' own timers are shorter. */
  polls() {
    const { setTimeout, clearTimeout } = globalThis, polls = new Map();
    this.set("setTimeout", (act, ms, ...rest) => {
      const timer = setTimeout(act, ms, ...rest);
      if (ms > 4000) polls.set(timer, ms);
      return timer;
    });
    this.set("clearTimeout", timer => {
      polls.delete(timer);
      clearTimeout(timer);
    });
    return polls;
  }

  /** Turns the clock on. */
  later(seconds) {
    const before = Date.now;
    this.set("Date", Object.assign(Object.create(Date), { now: () => before() + seconds * 1000 }));
  }

  async end() {
    this.clients.forEach(d => d.close());
    for (const [name, before] of Object.entries(this.changed)) {
      if (before) Object.defineProperty(globalThis, name, before);
      else delete globalThis[name];
    }
    await Promise.all(this.doors.map(door => door.server.listening && door.die()));
  }
}

function listOf(servers, more) {
  return { v: 1, generation: 1, issued: "2026-11-01T00:00:00Z", ttl: 15, doors: [], servers, ...more };
}

function server(name, more) {
  return { name, role: "api", datacenter: "x", url: `http://${name}.invalid/`, health: "up", priority: 0, weight: 1, ...more };
}

const names = servers => servers.map(server => server.name).join(" ");

/** Waits until something is seen. */
async function until(what, seen) {
  const begun = performance.now();
  while (!(await seen())) {
    assert(performance.now() - begun < PATIENCE, `waited for ${what}`);
    await new Promise(done => setTimeout(done, 2));
  }
}

/** EventSource as far as the client uses it, without coming back by itself. */
class Stream {
  constructor(url) {
    Stream.all.push(this);
    this.url = url;
    this.request = http.get(url, { agent: false }, response => {
      if (response.statusCode !== 200) return this.fail();
      let text = "";
      response.on("data", part => {
        text += part;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
          const data = text.slice(0, end).split("\n").find(line => line.startsWith("data: "));
          if (!this.isClosed) this.onmessage({ data: data.slice(6) });
        }
      });
      response.on("error", () => this.fail()).on("close", () => this.fail());
    }).on("error", () => this.fail());
  }

  fail() {
    if (!this.isClosed) this.onerror({});
  }

  close() {
    this.isClosed = true;
    this.request.destroy();
  }
}

// ---- the file

rule("the file is small", () => {
  const { size } = fs.statSync(CLIENT);
  assert(size <= SIZE_MAX, `${size} bytes`);
});

rule("a classic script gives window.daemun and needs nothing else there", () => {
  const page = vm.createContext({ fetch() {}, setTimeout, clearTimeout });
  vm.runInContext(fs.readFileSync(CLIENT, "utf8"), page);
  assert.equal(typeof page.daemun, "function");
  assert.deepEqual(Object.keys(page).sort(), ["clearTimeout", "daemun", "fetch", "setTimeout"]);
});

// ---- where it begins

rule("it begins with the embedded list, and asks for none", async scene => {
  const [door] = await scene.open("seoul");
  scene.page(door, JSON.stringify(listOf([door.listed({ name: "embedded" })])));
  const d = scene.client();
  assert.deepEqual([d.source, names(d.servers())], ["embedded", "embedded"]);
  assert.equal((await d.fetch("frontdoor", "/hello")).status, 200);
  assert.deepEqual(door.asked, ["GET /hello"]);
});

rule("else with the one that it kept, and asks for a live one", async scene => {
  const [door] = await scene.open("seoul");
  scene.page(door);
  localStorage["daemun:servers"] = JSON.stringify(listOf([door.listed({ name: "kept" })]));
  const d = scene.client();
  assert.deepEqual([d.source, names(d.servers())], ["kept", "kept"]);
  await until("a live list", () => d.source === "live");
  assert.equal(names(d.servers()), "seoul");
  assert.equal(names(JSON.parse(localStorage["daemun:servers"]).servers), "seoul");
});

rule("else it asks, and calls wait for that", async scene => {
  const [door] = await scene.open("seoul");
  const d = scene.client({ doors: [door.url] });
  assert.deepEqual([d.source, d.choose(), d.list.servers], [undefined, undefined, []]);
  assert.equal((await (await d.fetch("frontdoor", "/hello")).json()).door, "seoul");
  assert.equal(d.source, "live");
  assert.equal(door.count("GET /v1/servers"), 1);
});

rule("what is embedded or kept may be rubbish, and storage may be barred", async scene => {
  const [door] = await scene.open("seoul");
  for (const rubbish of ["", "{", "null", "{\"servers\":[]}", "{\"servers\":\"no\"}"]) {
    scene.page(door, rubbish);
    localStorage["daemun:servers"] = rubbish;
    const d = scene.client();
    assert.equal(d.source, undefined, rubbish);
    await until("a live list", () => d.source === "live");
  }
  scene.page(door);
  scene.set("localStorage", new Proxy({}, {
    get() { throw Error("barred"); },
    set() { throw Error("barred"); },
  }));
  const d = scene.client();
  await until("a live list", () => d.source === "live");
  assert.equal(door.count("GET /v1/servers"), 6);
});

rule("with store: false it leaves storage alone", async scene => {
  const [door] = await scene.open("seoul");
  scene.page(door);
  localStorage["daemun:servers"] = JSON.stringify(listOf([door.listed({ name: "kept" })]));
  const d = scene.client({ store: false });
  assert.equal(d.source, undefined);
  await until("a live list", () => d.source === "live");
  assert.equal(names(JSON.parse(localStorage["daemun:servers"]).servers), "kept");
});

// ---- order

rule("candidates are of the role, the better health first: up and unknown, degraded, draining, down", async scene => {
  const d = await scene.with(listOf([
    server("a", { health: "down" }), server("b", { health: "draining" }), server("c", { health: "degraded" }),
    server("d", { health: "unknown", priority: 1 }), server("e", { health: "up", priority: 2 }),
    server("f", { health: "unknown", priority: 3 }), server("g", { role: "upload" }),
  ]));
  assert.equal(names(d.servers("api")), "d e f c b a");
  assert.equal(names(d.servers("upload")), "g");
  assert.equal(d.choose("api"), "http://d.invalid/");
  assert.deepEqual([d.servers("mail"), d.choose("mail"), d.servers()], [[], undefined, []]);
});

rule("the role that nobody names is the frontdoor, or the one in the options", async scene => {
  const list = listOf([server("a"), server("door", { role: "frontdoor" })]);
  assert.equal(names((await scene.with(list)).servers()), "door");
  assert.equal(names((await scene.with(list, { role: "api" })).servers()), "a");
});

rule("a list of a later version is taken, with what it has that is new", async scene => {
  const servers = [server("a", { health: "radiant", hue: 3 }), server("b", { health: "down" }), { name: "c", role: "api" }];
  const d = await scene.with({ v: 7, servers });
  assert.equal(names(d.servers("api")), "a b");
});

rule("of equal health the lower priority is first, and among these lots are drawn by weight", async scene => {
  const weights = { a: 3, b: 1, c: 0 };
  const list = listOf([...Object.entries(weights).map(([name, weight]) => server(name, { weight, priority: 1 })),
    server("first", { priority: 0, weight: 0 })]);
  const [door] = await scene.open("seoul");
  scene.page(door, JSON.stringify(list));
  const seconds = { a: 0, b: 0, c: 0 }, draws = 4000;
  for (let i = 0; i < draws; i++) {
    const d = daemun({ watch: false });
    const order = d.servers("api").map(server => server.name);
    d.close();
    assert.equal(order[0], "first");
    assert.equal(order[3], "c");
    seconds[order[1]] += 1;
  }
  assert(Math.abs(seconds.a / draws - 0.75) < 0.04, JSON.stringify(seconds));
});

rule("lots are drawn once: the order lasts, whatever else the list says", async scene => {
  const servers = Array.from({ length: 20 }, (_, i) => server(`s${i}`));
  const d = await scene.with(listOf(servers));
  const order = names(d.servers("api"));
  for (let i = 0; i < 20; i++) assert.equal(names(d.servers("api")), order);
  scene.doors[0].list = listOf([server("new", { priority: 1 }), ...servers], { generation: 2 });
  await d.refresh();
  assert.equal(names(d.servers("api")), `${order} new`);
  const orders = new Set();
  for (let i = 0; i < 5; i++) orders.add(names((await scene.with(listOf(servers))).servers("api")));
  assert(orders.size > 1, "others draw others");
});

rule("with a key the door's order stands, but for quarantine", async scene => {
  const [door, other] = await scene.open("seoul", "frankfurt");
  const list = listOf([
    server("z", { priority: 9 }), other.listed({ role: "api", priority: 5 }), server("a", { health: "degraded" }),
    server("b", { weight: 900 }),
  ]);
  const d = await scene.with(list, { key: "room 7&x" });
  assert.equal(door.asked[0], "GET /v1/servers?key=room%207%26x");
  assert.equal(names(d.servers("api")), "z frankfurt a b");
  assert.equal((await d.fetch("api", "/")).status, 200, "the second answers");
  assert.equal(names(d.servers("api")), "frankfurt a b z");

  // What a page embeds was not asked for with this key.
  scene.page(door, JSON.stringify(list));
  assert.equal(names(scene.client({ key: "room" }).servers("api").slice(2)), "z a");
});

// ---- calls

rule("a call goes to the best, below its URL and nowhere else", async scene => {
  const [door] = await scene.open("seoul");
  const at = url => scene.with(listOf([door.listed({ role: "api", url })], { doors: [door.url] }));
  for (const [url, path, asked] of [
    [door.url, "/a?b=c", "/a?b=c"], [door.url, "a", "/a"],
    [`${door.url}v2`, "/a", "/v2/a"], [`${door.url}v2/`, "a", "/v2/a"],
    [door.url, "//evil.invalid/", "/evil.invalid/"], [door.url, "http://evil.invalid", "/http://evil.invalid"],
  ]) {
    assert.equal((await (await at(url)).fetch("api", path)).status, 200);
    assert.equal(door.asked.pop(), `GET ${asked}`);
  }
  const answer = await (await at(door.url)).fetch("api", "/x", { method: "POST", body: "hello" });
  assert.deepEqual(await answer.json(), { door: "seoul", method: "POST", body: "hello" });
});

/** A best door that fails and a second one; a client of them. */
async function pair(scene, failure, options) {
  const [bad, good] = await scene.open("bad", "good");
  const list = listOf([bad.listed(), good.listed({ priority: 1 })], { doors: [good.url, bad.url] });
  bad.list = good.list = list;
  const d = scene.client({ doors: [good.url], ttl: 3600, ...options });
  await d.refresh();
  if (failure === "dead") await bad.die();
  else bad.failures["*"] = failure;
  return { bad, good, d };
}

for (const failure of ["dead", "hang", "cut", "stall", 502, 503, 504]) {
  rule(`a call that fails (${failure}) goes on to the next, and the next call begins there`, async scene => {
    const { bad, good, d } = await pair(scene, failure);
    const begun = performance.now();
    assert.equal((await (await d.fetch("frontdoor", "/hello")).json()).door, "good");
    assert(performance.now() - begun < 10 * TIMEOUT);
    assert.equal(d.choose(), good.url);
    const asked = bad.asked.length;
    await d.fetch("frontdoor", "/again");
    assert.equal(bad.asked.length, asked);
  });
}

for (const status of [200, 304, 400, 404, 429, 500]) {
  rule(`status ${status} is an answer`, async scene => {
    const { bad, good, d } = await pair(scene, status);
    assert.equal((await d.fetch("frontdoor", "/hello")).status, status);
    assert.equal(good.count("GET /hello"), 0);
    assert.equal(d.choose(), bad.url);
  });
}

rule("an answer that comes slowly is no failure", async scene => {
  const { d } = await pair(scene, "drip");
  assert.equal(await (await d.fetch("frontdoor", "/hello")).text(), "drop ".repeat(5));
});

rule("quarantine is 5 s, doubles to 60 s, and ends with a success", async scene => {
  const { bad, good, d } = await pair(scene, 503);
  const fail = () => d.fetch("frontdoor", "/hello");
  const isHeldFor = async seconds => {
    await fail();
    scene.later(seconds - 0.5);
    assert.equal(d.choose(), good.url, `held for ${seconds} s`);
    scene.later(1);
    assert.equal(d.choose(), bad.url, `free after ${seconds} s`);
  };
  for (const seconds of [5, 10, 20, 40, 60, 60]) await isHeldFor(seconds);
  bad.failures = {};
  await fail();
  bad.failures["*"] = 503;
  await isHeldFor(5);
});

rule("calls that fail together count once", async scene => {
  const { bad, good, d } = await pair(scene, "hang");
  await Promise.all(Array.from({ length: 10 }, () => d.fetch("frontdoor", "/hello")));
  assert.equal(d.choose(), good.url);
  scene.later(5.5);
  assert.equal(d.choose(), bad.url);
});

for (const method of ["POST", "PATCH"]) {
  rule(`${method} is not sent twice`, async scene => {
    const { bad, good, d } = await pair(scene, 503);
    assert.equal((await d.fetch("frontdoor", "/a", { method })).status, 503);
    assert.equal(d.choose(), good.url, "but the next one goes elsewhere");
    scene.later(6);
    for (const failure of ["hang", "cut"]) {
      bad.failures["*"] = failure;
      await assert.rejects(d.fetch("frontdoor", "/b", { method }));
      scene.later(61);
    }
    assert.deepEqual(good.asked, ["GET /v1/servers"]);
    assert.equal(bad.asked.length, 3);
  });
}

rule("unless it has an Idempotency-Key; PUT, DELETE, HEAD and OPTIONS need none", async scene => {
  const { bad, good, d } = await pair(scene, 503);
  const key = { "Idempotency-Key": "7" };
  const inits = [
    { method: "POST", headers: key, body: "hello" },
    { method: "POST", headers: new Headers(key) },
    { method: "POST", headers: Object.entries(key) },
    ...["PUT", "put", "DELETE", "HEAD", "OPTIONS", "GET"].map(method => ({ method })),
  ];
  for (const init of inits) {
    assert.equal(d.choose(), bad.url);
    assert.equal((await d.fetch("frontdoor", "/a", init)).status, 200);
    scene.later(61);
  }
  assert.equal(bad.asked.length, inits.length);
  assert.equal(good.asked.length, inits.length + 1);
});

rule("those in quarantine are tried when there is nobody else; if all fail, so does the call", async scene => {
  const { bad, good, d } = await pair(scene, 503);
  await d.fetch("frontdoor", "/hello");
  bad.failures = {};
  good.failures["*"] = "cut";
  assert.equal((await (await d.fetch("frontdoor", "/hello")).json()).door, "bad");
  bad.failures["*"] = 502;
  good.failures["*"] = 502;
  await assert.rejects(d.fetch("frontdoor", "/hello"), /502/);
  await Promise.all([bad.die(), good.die()]);
  await assert.rejects(d.fetch("frontdoor", "/hello"));
  await assert.rejects(d.fetch("mail", "/hello"), /no server/);
});

rule("those that are down by the list are tried last, but tried", async scene => {
  const [down, up] = await scene.open("down", "up");
  const d = await scene.with(listOf([down.listed({ health: "down" }), up.listed({ priority: 3 })]));
  up.failures["*"] = 503;
  assert.equal((await (await d.fetch("frontdoor", "/hello")).json()).door, "down");
});

rule("the caller's own abort ends the call, and is nobody's fault", async scene => {
  const { bad, good, d } = await pair(scene, "hang", { timeout: 2000 });
  const own = new AbortController();
  const call = d.fetch("frontdoor", "/hello", { signal: own.signal });
  await until("the call to arrive", () => bad.count("GET /hello") === 1);
  own.abort();
  await assert.rejects(call, { name: "AbortError" });
  await assert.rejects(d.fetch("frontdoor", "/later", { signal: own.signal }), { name: "AbortError" });
  assert.deepEqual([good.asked.length, bad.count("GET /later")], [1, 0]);
  good.list = { ...good.list, servers: [...good.list.servers, server("new", { role: "frontdoor", priority: 9 })] };
  await d.refresh();
  assert.equal(names(d.servers()), "bad good new", "none is in quarantine");
});

rule("a signal that many calls share is left as it was", async scene => {
  const { d } = await pair(scene, null);
  const own = new AbortController();
  let listeners = 0;
  const { signal } = own, add = signal.addEventListener, remove = signal.removeEventListener;
  signal.addEventListener = (...args) => (listeners++, add.apply(signal, args));
  signal.removeEventListener = (...args) => (listeners--, remove.apply(signal, args));
  for (let i = 0; i < 5; i++) await d.fetch("frontdoor", "/hello", { signal });
  assert.equal(listeners, 0);
});

rule("without any list a call fails, and so it does without any door", async scene => {
  const [door] = await scene.open("seoul");
  await door.die();
  await assert.rejects(scene.client({ doors: [door.url] }).fetch("frontdoor", "/"), /no server/);
  await assert.rejects(scene.client().fetch("frontdoor", "/"), /no server/);
});

// ---- nearness

/** Measures until the order is this: on a busy machine a measurement may be off. */
function measured(d, order) {
  return until(`the order ${order}`, async () => {
    await d.measure();
    return names(d.servers()) === order;
  });
}

rule("once measured, those within 15 ms of the nearest come first, whatever their priority", async scene => {
  const [slow, near, alike] = await scene.open("slow", "near", "alike");
  slow.delay = 60;
  const d = await scene.with(listOf([
    slow.listed({ priority: 0 }), near.listed({ priority: 2 }), alike.listed({ priority: 1 }),
  ]));
  assert.equal(names(d.servers()), "slow alike near");
  await measured(d, "alike near slow"); // who is as near keeps the order of priority
  assert.equal(near.count("HEAD /v1/ping") > 0, true);
});

rule("health goes before nearness: the nearest is the nearest of the healthy", async scene => {
  const [slow, slower, near] = await scene.open("slow", "slower", "near");
  slow.delay = 60;
  slower.delay = 150;
  const d = await scene.with(listOf([
    slower.listed({ priority: 1 }), slow.listed({ priority: 2 }), near.listed({ health: "degraded" }),
  ]));
  assert.equal(names(d.servers()), "slower slow near");
  await measured(d, "slow slower near");
});

rule("who does not answer the measuring goes into quarantine; other roles are asked for their head", async scene => {
  const [far, gone, api] = await scene.open("far", "gone", "api");
  gone.failures["*"] = "hang";
  const d = await scene.with(listOf([gone.listed(), far.listed({ health: "degraded" }), api.listed({ role: "api" })]));
  await d.measure();
  assert.equal(names(d.servers()), "far gone");
  await d.measure("api");
  assert.deepEqual(api.asked, ["HEAD /", "HEAD /"]);
});

// ---- keeping fresh

rule("a new list is asked of the own origin, then of the list's doors, then of the options'", async scene => {
  const [own, second, third, given] = await scene.open("own", "second", "third", "given");
  scene.page(own);
  own.list = { ...own.list, doors: [second.url, own.url, third.url] };
  const d = scene.client({ doors: [given.url] });
  await d.refresh();
  const asked = () => scene.doors.map(door => door.asked.splice(0).length).join(" ");
  assert.equal(asked(), "1 0 0 0");
  for (const [door, expected] of [[own, "1 1 0 0"], [second, "1 1 1 0"], [third, "1 1 1 1"], [given, "1 1 1 1"]]) {
    door.failures["*"] = 500;
    [second, third, given].forEach(door => { door.list = { ...own.list, generation: door.port }; });
    const before = d.list;
    assert.equal(await d.refresh(), d.list);
    assert.equal(d.list !== before, door !== given);
    assert.equal(asked(), expected);
  }
});

for (const failure of ["dead", "hang", "cut", "stall", "rubbish", "empty", 304, 404, 503]) {
  rule(`a door that answers ${failure} leaves the list as it was, and the next one is asked`, async scene => {
    const [bad, good] = await scene.open("bad", "good");
    const d = await scene.with(listOf([bad.listed()], { doors: [bad.url] }));
    const before = JSON.stringify(d.list);
    if (failure === "dead") await bad.die();
    else bad.failures["*"] = failure;
    await d.refresh();
    assert.equal(JSON.stringify(d.list), before);
    const other = await scene.client({ doors: [bad.url, good.url] }).refresh();
    assert.equal(names(other.servers), "bad good");
  });
}

rule("it is asked once at a time", async scene => {
  const [door] = await scene.open("seoul");
  const d = scene.client({ doors: [door.url] });
  await Promise.all([d.refresh(), d.refresh(), d.fetch("frontdoor", "/"), d.measure()]);
  assert.equal(door.count("GET /v1/servers"), 1);
  await d.refresh();
  assert.equal(door.count("GET /v1/servers"), 2);
  assert.equal(door.heads.every(head => head["cache-control"] === "max-age=0"), false, "calls are cached as they may be");
  assert.equal(door.heads[0]["cache-control"], "max-age=0", "a list is not");
});

rule("it asks again after ttl, give or take a fifth", async scene => {
  const [door] = await scene.open("seoul");
  const polls = scene.polls();
  const random = Math.random;
  try {
    for (const [ttl, listed, drawn, expected] of [
      [undefined, 10, 0, 8000], [undefined, 10, 1, 12000], [5, 10, 0.5, 5000], [undefined, undefined, 0.5, 15000],
    ]) {
      door.list = { ...door.list, ttl: listed };
      Math.random = () => drawn;
      polls.clear();
      const d = scene.client({ doors: [door.url], ttl });
      await until("a poll to be planned", () => polls.size);
      assert.deepEqual([...polls.values()], [expected]);
      d.close();
    }
  } finally { Math.random = random; }
  const d = scene.client({ doors: [door.url], ttl: 0.02 });
  const before = door.asked.length;
  await until("three polls", () => door.asked.length > before + 3);
  await door.die();
  await door.rise();
  const asked = door.asked.length;
  await until("polls after the door was away", () => door.asked.length > asked + 1);
  d.close();
});

rule("it tells of servers that changed, and of nothing else", async scene => {
  const [door] = await scene.open("seoul");
  const told = [], gone = [];
  const d = scene.client({ doors: [door.url], ttl: 3600 });
  const { error } = console;
  let complaints = 0;
  console.error = () => { complaints += 1; };
  try {
    d.on(() => { throw Error("mine"); });
    d.on(list => told.push(list.generation));
    const off = d.on(list => gone.push(list.generation));
    await d.refresh();
    assert.deepEqual(told, [1]);
    door.list = { ...door.list, generation: 2, issued: "later", you: { datacenter: "x" } };
    await d.refresh();
    assert.deepEqual([told, d.list.generation], [[1], 2]);
    off();
    door.list = { ...door.list, generation: 3, servers: [door.listed({ health: "draining" })] };
    await d.refresh();
    assert.deepEqual([told, gone, complaints], [[1, 3], [1], 2]);
    d.close();
    door.list = { ...door.list, servers: [door.listed()] };
    await d.refresh();
    assert.deepEqual(told, [1, 3]);
  } finally { console.error = error; }
});

rule("online again, or seen again, it asks at once", async scene => {
  const [door] = await scene.open("seoul");
  const page = scene.page(door), polls = scene.polls();
  const d = scene.client({ ttl: 3600 });
  await d.refresh();
  const asks = async generation => {
    door.list = { ...door.list, generation };
    await until("a new list", () => d.list.generation === generation);
    assert.equal(polls.size, 1, "and one more is planned");
  };
  page.say("online");
  await asks(2);
  page.hide(true);
  page.hide(false);
  await asks(3);
  d.close();
  assert.equal(polls.size, 0);
  page.say("online");
  await d.fetch("frontdoor", "/");
  assert.equal(door.asked.length, 4, "a closed one does not");
});

// ---- the stream

const watching = { watch: true, ttl: 3600 };
const WATCH = "GET /v1/servers/watch";

rule("a stream brings lists, without polls", async scene => {
  const [door] = await scene.open("seoul");
  Stream.all = [];
  const page = scene.page(door, JSON.stringify(door.list));
  scene.set("EventSource", Stream);
  const d = scene.client({ ...watching, key: "k" });
  await until("the stream's list", () => d.source === "live");
  door.publish({ ...door.list, generation: 9 });
  await until("the next list", () => d.list.generation === 9);
  door.watchers.forEach(response => response.write("data: rubbish\n\ndata: {\"servers\":[]}\n\n"));
  door.publish({ ...door.list, generation: 10 });
  await until("the list after rubbish", () => d.list.generation === 10);
  assert.deepEqual(door.asked, [`${WATCH}?key=k`]);
  page.say("online");
  page.say("online");
  await until("streams in its place", () => Stream.all.length > 1 && door.watchers.size > 0);
  await new Promise(setImmediate);
  assert.equal(Stream.all.filter(stream => !stream.isClosed).length, 1, "one at a time");
  d.close();
  await until("the stream to end", () => door.watchers.size === 0);
});

rule("a stream that fails is replaced by asking, and another comes: from another door if this one is dead", async scene => {
  const [own, other] = await scene.open("own", "other");
  Stream.all = [];
  scene.page(own, JSON.stringify(own.list));
  scene.set("EventSource", Stream);
  const d = scene.client({ watch: true, ttl: 0.1 });
  await until("the stream", () => own.watchers.size === 1);
  other.publish({ ...other.list, generation: 5 });
  await own.die();
  await until("the other's list, asked for", () => other.count("GET /v1/servers") > 0 && d.list.generation === 5);
  await until("the other's stream", () => other.watchers.size === 1);
  other.publish({ ...other.list, generation: 6 });
  await until("its list", () => d.list.generation === 6);
});

rule("a stream puts polls off to four times ttl, anew with all that it brings; its end brings them back", async scene => {
  const [door] = await scene.open("seoul");
  Stream.all = [];
  scene.page(door, JSON.stringify(door.list));
  scene.set("EventSource", Stream);
  const polls = scene.polls(), planned = () => [...polls.values()].map(ms => Math.round(ms / 1e5));
  const d = scene.client({ watch: true, ttl: 1000 });
  const random = Math.random;
  Math.random = () => 0.5;
  try {
    await until("the stream's list", () => d.source === "live");
    assert.deepEqual(planned(), [40]);
    const [before] = polls.keys();
    door.publish({ ...door.list, generation: 2 });
    await until("the next list", () => d.list.generation === 2);
    assert.equal(polls.has(before), false);
    door.list = { ...door.list, generation: 3 };
    door.watchers.forEach(response => response.destroy());
    await until("a list that was asked for", () => d.list.generation === 3);
    assert.deepEqual(planned(), [10]);
  } finally { Math.random = random; }
});

rule("a door without a stream is polled", async scene => {
  const [door] = await scene.open("seoul");
  Stream.all = [];
  scene.page(door);
  scene.set("EventSource", Stream);
  door.failures["/v1/servers/watch"] = 404;
  scene.client({ watch: true, ttl: 0.05 });
  await until("polls", () => door.count("GET /v1/servers") > 4);
  assert(door.count(WATCH) <= door.count("GET /v1/servers"), "no faster than that");
  door.failures = {};
  await until("a stream", () => door.watchers.size === 1);
});

rule("a stream that is silent for long is not believed", async scene => {
  const [door, other] = await scene.open("seoul", "frankfurt");
  Stream.all = [];
  scene.page(door, JSON.stringify(door.list));
  scene.set("EventSource", Stream);
  scene.client({ watch: true, ttl: 0.05 });
  await until("the stream", () => door.watchers.size === 1);
  door.failures["*"] = "hang";
  await until("the other's stream", () => other.watchers.size === 1);
  assert.equal(door.watchers.size, 0);
});

rule("a hidden page has no stream, and watch: false neither", async scene => {
  const [door] = await scene.open("seoul");
  Stream.all = [];
  const page = scene.page(door, JSON.stringify(door.list));
  scene.set("EventSource", Stream);
  scene.client(watching);
  await until("the stream", () => door.watchers.size === 1);
  page.hide(true);
  await until("no stream", () => door.watchers.size === 0);
  page.hide(false);
  await until("the stream again", () => door.watchers.size === 1);
  document.hidden = true;
  scene.client(watching);
  scene.client({ ...watching, watch: false });
  assert.equal(Stream.all.length, 2);
  scene.set("EventSource", class { constructor() { throw Error("barred"); } });
  page.hide(false);
  await scene.client(watching).refresh();
});

rule("closed, it does nothing any more, even if it was about to", async scene => {
  const [door] = await scene.open("seoul");
  Stream.all = [];
  scene.set("EventSource", Stream);
  const d = scene.client({ doors: [door.url], watch: true, ttl: 0.02 });
  d.close();
  await d.refresh();
  const other = scene.client({ doors: [door.url], ttl: 3600 });
  await other.refresh();
  await other.fetch("frontdoor", "/");
  assert.equal(Stream.all.length, 0);
  assert.equal(door.count("GET /v1/servers"), 2);
});

// ---- play them

const stray = [];
process.on("unhandledRejection", error => stray.push(error));
process.on("uncaughtException", error => stray.push(error));

async function main() {
  await fetch("data:,"); // the first fetch of a process loads a lot
  const begun = performance.now();
  let failed = 0;
  for (const { name, play } of cases) {
    const scene = new Scene();
    try {
      let timer;
      const late = new Promise((_, no) => { timer = setTimeout(no, 2 * PATIENCE, Error("it takes too long")); });
      await Promise.race([play(scene), late]).finally(() => clearTimeout(timer));
      await scene.end();
      if (stray.length) throw stray.pop();
      console.log(`ok      ${name}`);
    } catch (error) {
      failed += 1;
      await scene.end().catch(() => {});
      console.log(`FAILED  ${name}\n${error.stack}`);
    }
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`${cases.length} rules, ${failed} broken, ${fs.statSync(CLIENT).size} bytes, ${seconds} s`);
  process.exit(failed ? 1 : 0);
}

main();
