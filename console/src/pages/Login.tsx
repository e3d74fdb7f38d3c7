import { useState } from "preact/hooks";
import { logIn } from "../api";
import { Fault } from "../parts/Fault";

export function Login({ isDialog }: { isDialog?: boolean }) {
  const [token, setToken] = useState("");
  const [fault, setFault] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const send = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await logIn(token);
    } catch (refused) {
      setFault(refused);
    }
    setBusy(false);
  };
  const form = (
    <form onSubmit={send}>
      <label>
        Token
        <input type="password" autocomplete="current-password" required value={token} onInput={(event) => setToken(event.currentTarget.value)} />
      </label>
      <Fault of={fault} />
      <button type="submit" class="main" disabled={busy}>
        Log in
      </button>
    </form>
  );
  if (isDialog) return form;
  return (
    <main class="login">
      <h1>Tidegate</h1>
      <p>This is the console of a gateway that takes messages of devices to databases.</p>
      <p class="soft">
        Log in with a token. The operator's token shows everything: it is in the file that <code>admin.token_file</code> of the configuration names. A tenant's token shows what is the
        tenant's own: the operator gives it.
      </p>
      {form}
    </main>
  );
}
