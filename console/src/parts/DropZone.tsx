import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

/** A part of a page that takes a file which is dropped on it, before an editor in it does. */
export function DropZone({ onFile, children }: { onFile: (file: File) => void; children: ComponentChildren }) {
  const [over, setOver] = useState(false);
  const holdsFiles = (event: DragEvent) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
  return (
    <div
      class={over ? "zone over" : "zone"}
      onDragOver={(event) => {
        if (!holdsFiles(event)) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDropCapture={(event) => {
        if (!holdsFiles(event)) return;
        event.preventDefault();
        event.stopPropagation();
        setOver(false);
        const file = event.dataTransfer?.files[0];
        if (file) onFile(file);
      }}
    >
      {children}
    </div>
  );
}
