import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentType } from "preact";
import { get, path } from "../../api";
import { visible } from "../../format";
import { Fault } from "../../parts/Fault";
import type { Language } from "../../parts/Editor";
import { NOTHING } from "../../put";
import type { DecoderTexts, PlaygroundPlace } from "../../types";
import { TEXT_FILES } from "./templates";
import type { TextFile } from "./templates";

export type EditorType = ComponentType<{ label: string; value: string; language: Language; onChange: (value: string) => void }>;

/** A decoder that is written on the page. */
export interface EditedText {
  place: PlaygroundPlace;
  file: TextFile;
  text: string;
  /** The version that served when the text was read. */
  beganWith: string;
}

export const placeName = (place: { tenant: string; type: string }) => `${place.tenant}/${place.type}`;

const isTextFile = (file: string | null): file is TextFile => file !== null && file in TEXT_FILES;

/** The text to begin with: what lies at the place, else a template. */
export async function textAt(place: PlaygroundPlace, file: TextFile): Promise<EditedText> {
  const lies: DecoderTexts | null = place.file === null ? null : await get<DecoderTexts>(path("guests", place.tenant, place.type, "source"));
  return { place, file, text: lies?.texts[file] ?? TEXT_FILES[file].template, beganWith: lies?.version ?? NOTHING };
}

/** The place at which somebody most probably wants to edit: the one that serves, if it may be changed. */
export function firstPlace(places: PlaygroundPlace[], serves: PlaygroundPlace | null): PlaygroundPlace | undefined {
  return places.find((place) => serves !== null && placeName(place) === placeName(serves)) ?? places[0];
}

interface Props {
  places: PlaygroundPlace[];
  edited: EditedText | null;
  Editor: EditorType | null;
  onEdit: (edited: EditedText) => void;
}

/** The choice of a place and a file there, and its text in an editor. */
export function EditedDecoder({ places, edited, Editor, onEdit }: Props) {
  const [fault, setFault] = useState<unknown>(null);
  const drafts = useRef(new Map<string, EditedText>());
  const name = (place: PlaygroundPlace, file: TextFile) => `${placeName(place)}.${file}`;
  const edit = (text: EditedText) => {
    drafts.current.set(name(text.place, text.file), text);
    onEdit(text);
  };
  /** Opens a text; one that was changed here is as it was left. */
  const open = (place: PlaygroundPlace, file: TextFile) => {
    setFault(null);
    const draft = drafts.current.get(name(place, file));
    if (draft) onEdit(draft);
    else textAt(place, file).then(onEdit, setFault);
  };
  const fileOf = (place: PlaygroundPlace): TextFile => (isTextFile(place.file) ? place.file : (edited?.file ?? "js"));
  useEffect(() => {
    const first = places[0];
    const stands = edited && places.some((place) => placeName(place) === placeName(edited.place));
    if (!stands && first) open(first, fileOf(first));
  }, [places.map(placeName).join()]);
  if (!edited) return <Fault of={fault} />;
  const now = places.find((place) => placeName(place) === placeName(edited.place)) ?? edited.place;
  const replaces = now.file === "wasm" ? "A component lies there: what you put takes its place." : now.guest ? `${now.guest} serves there.` : "Nothing serves there yet.";
  return (
    <>
      <div class="row">
        <label>
          Place, as tenant/type
          <select
            value={placeName(edited.place)}
            onChange={(event) => {
              const place = places.find((one) => placeName(one) === event.currentTarget.value);
              if (place) open(place, fileOf(place));
            }}
          >
            {places.map((place) => (
              <option key={placeName(place)}>{placeName(place)}</option>
            ))}
          </select>
        </label>
        <label>
          File
          <select value={edited.file} onChange={(event) => open(edited.place, event.currentTarget.value as TextFile)}>
            {Object.entries(TEXT_FILES).map(([file, { title }]) => (
              <option key={file} value={file}>
                {title}
              </option>
            ))}
          </select>
        </label>
        <button
          type="button"
          onClick={() => {
            drafts.current.delete(name(edited.place, edited.file));
            open(edited.place, edited.file);
          }}
        >
          Discard my changes
        </button>
      </div>
      <p class="soft">
        {visible(replaces)} {edited.place.tenant === "_default" && "It is for all tenants without a decoder of their own."}
      </p>
      <Fault of={fault} />
      {Editor ? <Editor label="Decoder" value={edited.text} language={edited.file} onChange={(text) => text !== edited.text && edit({ ...edited, text })} /> : <p>Loading the editor…</p>}
    </>
  );
}
