// Messages as they come, and those that were refused.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { accessible, ask, logIn, open, operator, origin } from "../visit.mjs";

export const steps = {
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

  async "a page that stands still misses messages, and says how many"() {
    const page = await open();
    await logIn(page, operator);
    await page.goto(`${origin}/#/tap?tenant=acme&type=long`);
    await page.getByText("connected", { exact: true }).waitFor();
    const debug = await page.context().newCDPSession(page);
    await debug.send("Debugger.enable");
    // It reads nothing more; what comes fills the buffers on the way, and then its queue in the gateway.
    const paused = new Promise((resolve) => debug.once("Debugger.paused", resolve));
    await debug.send("Debugger.pause");
    await paused;
    await ask("flood");
    await debug.send("Debugger.resume");
    await page.getByText(/[1-9][\d,]* dropped, because this page reads too slowly/).waitFor();
    await page.context().close();
  },
};
