// Visits of the console: pages that note what they should not do, logins, and looks at what is shown.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { launch } from "./browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const [, address, operator, acme] = process.argv.slice(2);
export const origin = `http://${address}`;
export const browser = await launch();

/** Requests to other addresses, and errors and dialogs of the page: none may be there at the end. */
export const foreign = [];
export const errors = [];

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the program that runs the gateway do something. */
export async function ask(name) {
  console.log(`do ${name}`);
  const { value } = await answers.next();
  assert.equal(value, "done");
}

export async function open(options = {}) {
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
  page.on("dialog", (dialog) => {
    errors.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  return page;
}

export async function logIn(page, token) {
  await page.goto(`${origin}/`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { name: /^Overview/ }).waitFor();
}

/** Nothing that axe finds is left. It is run from the test's side of the page: the page's policy lets no script in. */
export async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}: ${one.help}`);
  });
  assert.deepEqual(found, [], `axe on ${what}`);
}

export async function noSidewaysScroll(page, what) {
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(beyond <= 0, `${what} is ${beyond} px too wide`);
}

/** Drops files on an element, as somebody does who drags them there. */
export async function drop(page, onto, files) {
  const transfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, text } of files) transfer.items.add(new File([text], name));
    return transfer;
  }, files);
  await onto.dispatchEvent("dragover", { dataTransfer: transfer });
  await onto.dispatchEvent("drop", { dataTransfer: transfer });
}

export const PAGES = {
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
