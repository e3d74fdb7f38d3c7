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
      <p>The operator's token shows everything, a tenant's token what is the tenant's own.</p>
      {form}
    </main>
  );
}
