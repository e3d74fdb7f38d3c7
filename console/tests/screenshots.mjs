// Pictures of the console, for the documentation: of a gateway with a fleet that another program runs.
// Usage: node tests/screenshots.mjs ADDRESS TOKEN FOLDER

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch } from "./browser.mjs";

const [address, token, folder] = process.argv.slice(2);
const origin = `http://${address}`;
const BYTES_MAX = 200_000;

const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1180, height: 760 }, colorScheme: "light", timezoneId: "UTC", reducedMotion: "reduce" });
page.setDefaultTimeout(60_000);

/** Takes a picture of the page, or of a part of it. */
async function picture(name, of = page) {
  const png = await of.screenshot({ animations: "disabled", caret: "hide" });
  if (png.length > BYTES_MAX) throw new Error(`${name}.png has ${png.length} bytes; at most ${BYTES_MAX} are meant`);
  writeFileSync(join(folder, `${name}.png`), png);
  console.log(`${name}.png: ${png.length} bytes`);
}

await page.goto(`${origin}/`);
await page.getByLabel("Token").fill(token);
await page.getByRole("button", { name: "Log in" }).click();
await page.getByRole("heading", { name: "The last hour" }).waitFor();
await page.waitForTimeout(1_000);
await picture("console");
await picture("chart", page.getByRole("region", { name: "Messages and lines a second" }));

await page.goto(`${origin}/#/tap`);
await page.getByText("connected", { exact: true }).waitFor();
// One that is refused stands among those with lines.
const messages = page.getByRole("region", { name: "Messages" });
await messages.getByText("quarantined").first().waitFor();
await page.waitForTimeout(1_000);
await page.getByRole("button", { name: "Pause" }).click();
await messages.getByRole("row").filter({ hasText: "telemetry" }).filter({ hasText: "device_id=" }).getByRole("button").nth(2).click();
await page.getByRole("region", { name: "Payload" }).waitFor();
await messages.evaluate((element) => (element.scrollTop = 0));
await picture("tap");
await browser.close();
