// The console in a real browser, on a gateway that another program runs. That program reads a line `do NAME` from
// stdout, does it, and writes `done` to stdin.
// Usage: node tests/run.mjs STEPS ADDRESS OPERATOR_TOKEN ACME_TOKEN
// STEPS are files of tests/steps, with commas between them; their order is that of the steps.

import assert from "node:assert/strict";
import { browser, errors, foreign } from "./visit.mjs";

for (const file of process.argv[2].split(",")) {
  const { steps } = await import(`./steps/${file}.mjs`);
  for (const [name, step] of Object.entries(steps)) {
    const began = Date.now();
    try {
      await step();
    } catch (fault) {
      console.error(`failed: ${name}\n${fault.stack}`);
      for (const page of browser.contexts().flatMap((context) => context.pages())) {
        console.error(`${page.url()} shows:\n${await page.evaluate(() => document.body.innerText)}`);
      }
      await browser.close();
      process.exit(1);
    }
    console.error(`${((Date.now() - began) / 1000).toFixed(1)} s: ${name}`);
  }
}
await browser.close();
assert.deepEqual(foreign, [], "requests to other addresses");
assert.deepEqual(errors, [], "errors of the page");
console.log("all done");
process.exit(0);
