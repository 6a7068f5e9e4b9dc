// Users of a door: node load.js URL REQUESTS CONCURRENCY [--direct]
//
// Half of the requests ask for the page, half for the list, all through the client. A user sees a failure when a call throws,
// when its status is not 200, or when what came is not whole. Says how far it is about every 1,000, and at the end one line
// of JSON. With --direct, plain fetch takes the client's place: what users without it see.
"use strict";
const daemun = require("../../../gateway/assets/daemun.js");

const PROGRESS = 1000;
const FAILURES_SHOWN = 10;

const isPage = body => body.includes("</html>");
const isList = body => JSON.parse(body).servers.length > 0;

async function main(url, requests, concurrency, isDirect) {
  let attempts = 0, asked = 0, done = 0, failed = 0, slowest = 0;
  const failures = [], begun = performance.now();
  const counted = (url, init = {}) => {
    if (!init.cache) attempts += 1; // polls have it
    return fetch(url, init);
  };
  const d = daemun({ doors: [url], fetch: counted, store: false });
  await d.refresh();
  const call = isDirect ? path => counted(new URL(path, url)) : path => d.fetch("frontdoor", path);

  async function ask(path, isWhole) {
    const begun = performance.now();
    try {
      const answer = await call(path), body = await answer.text();
      if (answer.status !== 200) throw Error(`status ${answer.status}`);
      if (!isWhole(body)) throw Error(`not whole: ${body.length} bytes`);
    } catch (error) {
      failed += 1;
      const cause = error.cause ? ` (${error.cause.message})` : "";
      if (failures.length < FAILURES_SHOWN) failures.push(`${path} after ${done}: ${error.message}${cause}`);
    }
    slowest = Math.max(slowest, performance.now() - begun);
    done += 1;
    if (done % PROGRESS === 0) console.log(`done ${done} failed ${failed}`);
  }

  async function user() {
    while (asked < requests) {
      asked += 1;
      await (asked % 2 ? ask("/", isPage) : ask("/v1/servers", isList));
    }
  }

  await Promise.all(Array.from({ length: concurrency }, user));
  const seconds = (performance.now() - begun) / 1000;
  d.close();
  console.log(JSON.stringify({
    requests: done, failed, retried: attempts - done, slowest_ms: Math.round(slowest),
    per_second: Math.round(done / seconds), first_failures: failures,
  }));
}

const [url, requests, concurrency, direct] = process.argv.slice(2);
if (!(requests > 0 && concurrency > 0)) {
  console.error("node load.js URL REQUESTS CONCURRENCY [--direct]");
  process.exit(2);
}
main(url, Number(requests), Number(concurrency), direct === "--direct").then(() => process.exit());
