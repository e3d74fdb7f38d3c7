// Names and payloads that strangers send: markup, control characters, bytes that are no text, and one very long line.

import assert from "node:assert/strict";
import { accessible, ask, logIn, noSidewaysScroll, open, operator, origin } from "../visit.mjs";

const NAME = "<img src=x onerror=alert(1)>";

/** Every place at which text of a stranger is shown, and what must stand there as it was sent. */
async function shown(page, hash, text) {
  await page.goto(`${origin}/${hash}`);
  await page.getByText(text, { exact: false }).first().waitFor();
  assert.equal(await page.locator("img").count(), 0, `markup of a stranger is in ${hash}`);
  await noSidewaysScroll(page, hash);
}

export const steps = {
  async "markup and control characters of strangers are shown as they are, and do nothing"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/tap?tenant=acme&device=${encodeURIComponent(NAME)}`);
    await page.getByText("connected", { exact: true }).waitFor();
    await ask("strangers");
    const messages = page.getByRole("region", { name: "Messages" });
    await messages.getByText(NAME).first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await messages.getByText("quarantined").first().waitFor();
    await messages.getByRole("button").first().click();
    await page.getByRole("region", { name: "Payload" }).waitFor();
    assert.equal(await page.locator("img").count(), 0);
    await accessible(page, "a stranger's message");
    await shown(page, "#/devices", NAME);
    await shown(page, `#/devices/acme/${encodeURIComponent(NAME)}`, NAME);
    await shown(page, "#/quarantine", NAME);
    await shown(page, `#/quarantine?device=${encodeURIComponent(NAME)}`, NAME);
    // A cursor that moves and a text that runs backwards are characters that are seen.
    await page.getByRole("region", { name: "Entries" }).getByRole("row").filter({ hasText: "nonsense" }).getByRole("link").first().click();
    const payload = page.getByRole("region", { name: "Payload" });
    await payload.waitFor();
    const text = await payload.innerText();
    assert.ok(text.includes("\\u001b[31m") && text.includes("\\u202e") && text.includes("<b>bold</b>"), text);
    assert.ok(!/[\u0000-\u0008\u000b-\u001f\u202e]/.test(text), JSON.stringify(text));
    await page.context().close();
  },

  async "bytes that are no text are shown in hex and go to the playground as they are"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/quarantine?type=raw`);
    await page.getByRole("region", { name: "Entries" }).getByRole("link").first().click();
    await page.getByText("not UTF-8").waitFor();
    await page.getByRole("region", { name: "Payload" }).getByText("ff fe 00").waitFor();
    assert.ok(await page.getByRole("button", { name: "Text" }).isDisabled());
    await page.getByRole("link", { name: "Open in the playground" }).click();
    await page.getByRole("textbox", { name: "Payload" }).getByText("ff fe 00").waitFor();
    assert.ok(await page.getByRole("radio", { name: "hex" }).isChecked());
    await page.context().close();
  },

  async "a line of a mebibyte is shown in part, and is taken by the playground"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/quarantine?type=line`);
    await page.getByRole("region", { name: "Entries" }).getByRole("link").first().click();
    const payload = page.getByRole("region", { name: "Payload" });
    await payload.waitFor();
    assert.ok((await payload.innerText()).length <= 20_000, "more than is looked at is in the page");
    await page.getByRole("button", { name: "Show all" }).click();
    await page.waitForFunction(() => document.querySelector("pre.box[aria-label=Payload]").textContent.length > 100_000);
    await noSidewaysScroll(page, "a long line");
    await page.goto(`${origin}/#/playground?topic=tenant/acme/device/dev-1/telemetry`);
    const editor = page.getByRole("textbox", { name: "Payload" });
    await editor.waitFor();
    // Pasted, as somebody would.
    await editor.evaluate((element) => {
      const clipboard = new DataTransfer();
      clipboard.setData("text/plain", `{"site_id":"lab-1","seq":1,"metrics":{"t":1},"note":"${"x".repeat((1 << 20) - 200)}"}`);
      element.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard, bubbles: true, cancelable: true }));
    });
    await editor.getByText("lab-1").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    // It may take longer than the deadline: what counts is that it comes back with an end.
    await page.getByRole("region", { name: "Result" }).getByRole("heading", { level: 2 }).waitFor();
    await page.context().close();
  },
};
