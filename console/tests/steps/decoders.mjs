// Decoders that are tried, written and put.

import assert from "node:assert/strict";
import { accessible, acme, ask, drop, logIn, open, operator, origin } from "../visit.mjs";

const TOPIC = "tenant/acme/device/dev-1/up";

/** A script that makes a field of the number of bytes. */
const script = (field) => `function decodeUplink(input) { return { data: { ${field}: input.bytes.length } }; }`;

/** Opens the playground with the script of acme/up in its editor. */
async function edit(page) {
  await page.goto(`${origin}/#/playground?topic=${TOPIC}`);
  await page.getByRole("textbox", { name: "Payload" }).fill('{"site_id":"lab-1"}');
  await page.getByRole("radio", { name: "edited here" }).check();
  await page.getByRole("textbox", { name: "Decoder" }).getByText("decodeUplink").waitFor();
}

/** Writes another script. The old one goes first: Chromium would give a text in its place the colour of its first word, in a
 *  style that the page's policy blocks. */
async function write(page, text) {
  const editor = page.getByRole("textbox", { name: "Decoder" });
  await editor.press("Control+a");
  await editor.press("Delete");
  await editor.fill(text);
}

async function runScript(page, text) {
  await write(page, text);
  await page.getByRole("button", { name: "Run" }).click();
}


export const steps = {
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
    await page.getByLabel("Decoder", { exact: true }).setInputFiles({ name: "broken.wasm", mimeType: "application/wasm", buffer: Buffer.from("no component") });
    await page.getByRole("button", { name: "Put" }).click();
    await page.getByText("It may not serve.").waitFor();
    await page.context().close();
  },

  async "a script is mended in the playground and put, and what it had refused is replayed"() {
    await ask("break");
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/quarantine?reason=GUEST_REFUSED`);
    await page.getByRole("region", { name: "Entries" }).getByRole("link").first().click();
    await page.getByText("CODEC_THREW").first().waitFor();
    const entry = page.url();
    await page.getByRole("link", { name: "Open in the playground" }).click();
    await page.getByRole("radio", { name: "edited here" }).check();
    await page.getByRole("textbox", { name: "Decoder" }).getByText("input.no.such").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("heading", { name: "It would be refused: GUEST_REFUSED" }).waitFor();
    await runScript(page, script("n"));
    await page.getByRole("heading", { name: /^1 line,/ }).waitFor();
    await page.getByRole("region", { name: "Lines" }).getByText(/ n=\d+\.0 /).waitFor();
    await accessible(page, "a script in the playground");
    const saved = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save as case" }).click();
    assert.equal((await saved).suggestedFilename(), "case.jsonl");
    // Only what was run is put.
    await write(page, script("m"));
    assert.ok(await page.getByRole("button", { name: "Put it at acme/up" }).isDisabled());
    await runScript(page, script("n"));
    await page.getByRole("button", { name: "Put it at acme/up" }).click();
    await page.getByText("It serves.").waitFor();
    await page.goto(entry);
    await page.getByRole("button", { name: "Replay" }).click();
    await page.getByText(/1 replayed: 1 with lines/).waitFor();
    await page.context().close();
  },

  async "a script that loops ends at its deadline, and the page says so"() {
    const page = await open();
    await logIn(page, operator);
    await edit(page);
    await runScript(page, "function decodeUplink(input) { for (;;) {} }");
    await page.getByRole("heading", { name: "It ran too long, and was stopped at its deadline: GUEST_DEADLINE" }).waitFor();
    await runScript(page, "for (;;) {}");
    await page.getByRole("alert").getByText("GUEST_DEADLINE").waitFor();
    await page.context().close();
  },

  async "of two who put at once the second is told, and may put in the place of the first"() {
    const pages = [];
    for (const token of [operator, acme]) {
      const page = await open();
      await logIn(page, token);
      await edit(page);
      pages.push(page);
    }
    const [first, second] = pages;
    for (const [page, field] of [[first, "first"], [second, "second"]]) {
      await runScript(page, script(field));
      await page.getByText("It may serve.").waitFor();
    }
    await first.getByRole("button", { name: "Put it at acme/up" }).click();
    await first.getByText("It serves.").waitFor();
    await second.getByRole("button", { name: "Put it at acme/up" }).click();
    await second.getByText("Somebody else has put a decoder there meanwhile.").waitFor();
    await second.getByRole("alert").getByText("put by operator at").waitFor();
    await accessible(second, "a conflict");
    await second.getByRole("button", { name: "Put mine in its place" }).click();
    await second.getByText("It serves.").waitFor();
    // The first goes on with an old version, and is told in turn.
    await runScript(first, script("third"));
    await first.getByText("It may serve.").waitFor();
    await first.getByRole("button", { name: "Put it at acme/up" }).click();
    await first.getByRole("alert").getByText("put by tenant acme at").waitFor();
    for (const page of pages) await page.context().close();
  },

  async "a mapping that is dropped on the playground shows the bytes of each value"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/playground?topic=tenant/acme/device/dev-1/meter`);
    await page.getByRole("radio", { name: "hex" }).check();
    await page.getByRole("textbox", { name: "Payload" }).fill("01 64 00 0f 42 40 7f");
    await page.getByText("Nothing serves acme/meter yet").waitFor();
    const text = 'decoder = "mapping"\n[options]\nmeasurement = "meter"\nfields.energy_kwh = "u32be@2 * 0.001"\n';
    await drop(page, page.getByRole("group", { name: "Decoder" }), [{ name: "meter.toml", text }]);
    await page.getByRole("textbox", { name: "Decoder" }).getByText("u32be@2").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    const values = page.getByRole("region", { name: "Values" });
    await values.getByText("bytes 2 to 5").waitFor();
    await values.getByRole("button", { name: "energy_kwh" }).click();
    const used = page.getByRole("region", { name: "Bytes that were used" });
    assert.deepEqual(await used.locator(".chosen").allInnerTexts(), ["00", "0f", "42", "40"]);
    await accessible(page, "the values of a mapping");
    await page.context().close();
  },

  async "a decoder that is dropped on its page is put, with the verdict and the difference"() {
    await ask("up");
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/decoders/acme/up`);
    const form = page.getByRole("form", { name: "Put a decoder" });
    await drop(page, form, [{ name: "up.js", text: script("other") }]);
    await form.getByText("up.js").waitFor();
    await form.getByRole("button", { name: "Put" }).click();
    await form.getByText("It serves.").waitFor();
    await form.getByText(/messages decode differently/).waitFor();
    await form.getByRole("region", { name: "First difference" }).getByText("other=").waitFor();
    await accessible(page, "a decoder");
    await page.context().close();
  },
};
