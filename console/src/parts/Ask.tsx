import { useEffect, useRef, useState } from "preact/hooks";
import { words } from "../api";

interface Props {
  /** The button that opens the question. */
  button: string;
  question: string;
  /** The button that does it. */
  confirm: string;
  run: () => Promise<unknown>;
  disabled?: boolean;
}

/** A button for what cannot be taken back: it asks first, and says if it failed. */
export function Ask({ button, question, confirm, run, disabled }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [open, setOpen] = useState(false);
  const [state, setState] = useState<{ busy: boolean; fault: string }>({ busy: false, fault: "" });
  useEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  const close = () => {
    dialog.current?.close();
    setOpen(false);
    setState({ busy: false, fault: "" });
  };
  const go = async () => {
    setState({ busy: true, fault: "" });
    try {
      await run();
      close();
    } catch (fault) {
      setState({ busy: false, fault: words(fault) });
    }
  };
  return (
    <>
      <button type="button" disabled={disabled} onClick={() => setOpen(true)}>
        {button}
      </button>
      {open && (
        <dialog ref={dialog} aria-label={button} onClose={close}>
          <p>{question}</p>
          {state.fault && (
            <p class="bad" role="alert">
              {state.fault}
            </p>
          )}
          <div class="row">
            <button type="button" class="main" disabled={state.busy} onClick={go}>
              {confirm}
            </button>
            <button type="button" onClick={close}>
              Cancel
            </button>
          </div>
        </dialog>
      )}
    </>
  );
}
