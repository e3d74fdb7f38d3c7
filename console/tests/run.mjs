// The console in a real browser, on a gateway that another program runs. That program reads a line `do NAME` from
// stdout, does it, and writes `done` to stdin.
// Usage: node tests/run.mjs ADDRESS OPERATOR_TOKEN ACME_TOKEN BASIS_FOLDER

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { launch } from "./browser.mjs";

const [address, operator, acme] = process.argv.slice(2);
const origin = `http://${address}`;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the other program do something. */
async function ask(name) {
  console.log(`do ${name}`);
  const { value } = await answers.next();
  assert.equal(value, "done");
}

const browser = await launch();
const foreign = [];
const errors = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("request", (request) => {
    if (!request.url().startsWith(origin) && !request.url().startsWith("blob:")) foreign.push(request.url());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // Chromium writes each answer that is no success, and a gateway that is away.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) errors.push(message.text());
  });
  return page;
}

async function logIn(page, token) {
  await page.goto(`${origin}/`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: /^Overview/ }).waitFor();
}

/** Nothing that axe finds is left. It is run from the test's side of the page: the page's policy lets no script in. */
async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}: ${one.help}`);
  });
  assert.deepEqual(found, [], `axe on ${what}`);
}

async function noSidewaysScroll(page, what) {
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(beyond <= 0, `${what} is ${beyond} px too wide`);
}

const PAGES = {
  overview: "Overview",
  tenants: "Tenants",
  devices: "Devices",
  decoders: "Decoders",
  quarantine: "Quarantine",
  databases: "Databases",
  tap: "Live tap",
  playground: "Playground",
  configuration: "Configuration",
};

const steps = {
  async "a wrong token is refused, and the right one opens the page"() {
    const page = await open();
    await page.goto(`${origin}/`);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("nobody has this token").waitFor();
    await accessible(page, "the login");
    await logIn(page, operator);
    const cookies = await page.context().cookies();
    assert.ok(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict", JSON.stringify(cookies));
    assert.equal(await page.evaluate(() => document.cookie), "");
    await page.context().close();
  },

  async "each page shows what the gateway has, in light, in dark and on a small screen"() {
    for (const [width, theme] of [[1100, "light"], [360, "dark"]]) {
      const page = await open({ viewport: { width, height: 740 }, colorScheme: theme });
      await logIn(page, operator);
      for (const [name, title] of Object.entries(PAGES)) {
        await page.goto(`${origin}/#/${name}`);
        await page.getByRole("heading", { level: 1, name: title }).waitFor();
        if (name === "tap") await page.getByText("connected", { exact: false }).first().waitFor();
        if (name === "playground") await page.getByRole("textbox", { name: "Payload" }).waitFor();
        if (["tenants", "devices"].includes(name)) await page.getByRole("cell", { name: "lab-1" }).or(page.getByRole("rowheader", { name: "acme", exact: true })).first().waitFor();
        await page.waitForTimeout(100);
        await accessible(page, `${name}, ${theme}, ${width} px`);
        await noSidewaysScroll(page, `${name} at ${width} px`);
      }
      await page.context().close();
    }
  },

  async "a table of ten thousand devices is there at once and moves without a stall"() {
    const page = await open();
    await logIn(page, operator);
    const many = Array.from({ length: 10_000 }, (_, n) => ({ tenant: "many", device: `device-${n}`, site: "lab", status: "ACTIVE", active: true, last_seen_ms: 0, messages: n, messages_last_minute: 1 }));
    await page.route("**/api/v1/devices?*", (route) => route.fulfill({ json: { devices: many, more: 0 } }));
    await page.evaluate(() => {
      window.longest = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((one) => (window.longest = Math.max(window.longest, one.duration)))).observe({ type: "longtask", buffered: false });
    });
    await page.goto(`${origin}/#/devices`);
    await page.getByRole("link", { name: "device-0", exact: true }).waitFor();
    assert.ok((await page.locator("tbody tr").count()) < 200, "all rows are in the page");
    const box = page.getByRole("region", { name: "Devices" });
    await box.evaluate((element) => (element.scrollTop = element.scrollHeight));
    await page.getByRole("link", { name: "device-9999" }).waitFor();
    const longest = await page.evaluate(() => window.longest);
    // A busy machine stretches tasks: many times what is promised is a fault of the page itself.
    assert.ok(longest < 5_000, `a task took ${longest} ms`);
    await page.context().close();
  },

  async "a refused message is found by its reason, seen as text and hex, and replayed once its decoder is there"() {
    await ask("refuse");
    const page = await open();
    await logIn(page, operator);
    await page.getByRole("navigation").getByRole("link", { name: "Quarantine" }).click();
    await page.getByRole("button", { name: /^NO_GUEST/ }).click();
    await page.getByRole("region", { name: "Entries" }).getByRole("link").first().click();
    const payload = page.getByRole("region", { name: "Payload" });
    await payload.getByText("<script>").waitFor();
    await accessible(page, "an entry");
    await page.getByRole("button", { name: "Hex" }).click();
    await payload.getByText("000000").waitFor();
    await ask("mend");
    await page.getByRole("button", { name: "Replay" }).click();
    await page.getByText(/1 replayed: 1 with lines/).waitFor();
    await page.context().close();
  },

  async "the tap shows messages as they come, with lines and payload, and stops when it is paused"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/tap?tenant=acme`);
    await page.getByText("connected", { exact: true }).waitFor();
    await ask("publish");
    const messages = page.getByRole("region", { name: "Messages" });
    await messages.getByText("tenant/acme/device/dev-1/telemetry").first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await messages.getByRole("button").first().click();
    await page.getByRole("region", { name: "Lines" }).getByText("device_id=dev-1").waitFor();
    const payload = page.getByRole("region", { name: "Payload" });
    await payload.getByText('"***"').waitFor();
    await accessible(page, "an open message");
    const rows = await messages.getByRole("button", { name: /^\d\d:/ }).count();
    await ask("publish");
    await page.waitForTimeout(700);
    assert.equal(await messages.getByRole("button", { name: /^\d\d:/ }).count(), rows, "a paused tap stands still");
    const saved = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save as cases" }).click();
    const text = readFileSync(await (await saved).path(), "utf8");
    const one = JSON.parse(text.split("\n")[0]);
    assert.equal(one.topic, "tenant/acme/device/dev-1/telemetry");
    assert.ok(one.expect.lines[0].includes("device_id=dev-1") && one.site === "lab-1", text);
    await page.getByRole("link", { name: "Open in the playground" }).click();
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("heading", { name: /^1 line,/ }).waitFor();
    await accessible(page, "a result of the playground");
    await page.context().close();
  },

  async "the playground takes hex, and says what is wrong with it"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/playground?topic=tenant/acme/device/dev-1/telemetry`);
    await page.getByRole("textbox", { name: "Payload" }).fill('{"site_id":"lab-1","seq":1,"metrics":{"t":1.5}}');
    await page.getByRole("radio", { name: "hex" }).check();
    await page.getByRole("textbox", { name: "Payload" }).getByText("7b 22 73").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Lines" }).waitFor();
    await page.getByRole("textbox", { name: "Payload" }).fill("7b 2");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText("this is not hex").waitFor();
    await page.context().close();
  },

  async "a decoder that may not serve is refused with the reason"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/decoders`);
    await page.getByLabel("Tenant, or _default").fill("acme");
    await page.getByLabel("Message type, or _any").fill("broken");
    await page.getByLabel("Component").setInputFiles({ name: "broken.wasm", mimeType: "application/wasm", buffer: Buffer.from("no component") });
    await page.getByRole("button", { name: "Put" }).click();
    await page.getByText("It may not serve.").waitFor();
    await page.context().close();
  },

  async "a tenant sees its own pages and nothing of another"() {
    const page = await open();
    await logIn(page, acme);
    await page.getByRole("heading", { name: "Overview of acme" }).waitFor();
    for (const name of Object.keys(PAGES)) {
      await page.goto(`${origin}/#/${name}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.waitForTimeout(300);
      const text = await page.evaluate(() => document.body.innerText);
      assert.ok(!text.includes("globex"), `globex stands on ${name}: ${text}`);
    }
    for (const path of ["tenants/globex", "devices/globex/dev-9"]) {
      await page.goto(`${origin}/#/${path}`);
      await page.getByText('not valid for the tenant "globex"').first().waitFor();
    }
    await ask("rename");
    await page.goto(`${origin}/#/overview`);
    await page.getByLabel("Token").waitFor();
    await page.context().close();
  },

  async "the page is used by the keyboard alone"() {
    const page = await open();
    await page.goto(`${origin}/`);
    await page.getByLabel("Token").waitFor();
    await page.getByLabel("Token").focus();
    await page.keyboard.type(operator);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Skip to the page");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
    await page.goto(`${origin}/#/quarantine`);
    const remove = page.getByRole("button", { name: "Remove all" });
    // It is there for the keyboard once there is something to remove.
    await remove.click({ trial: true });
    await remove.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.context().close();
  },

  async "a session ends, and the page asks for the token again"() {
    const page = await open();
    await logIn(page, operator);
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("Token").waitFor();
    await page.context().close();
  },

  async "a gateway that restarts under the page is waited for, and the page says so"() {
    const page = await open();
    await logIn(page, operator);
    await ask("stop");
    await page.getByText("The gateway does not answer; trying again").waitFor();
    await accessible(page, "a page without its gateway");
    await ask("start");
    // Sessions end with the gateway.
    await page.getByLabel("Token").waitFor({ timeout: 30_000 });
    await page.getByLabel("Token").fill(operator);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.context().close();
  },
};

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
await browser.close();
assert.deepEqual(foreign, [], "requests to other addresses");
assert.deepEqual(errors, [], "errors of the page");
console.log("all done");
process.exit(0);
