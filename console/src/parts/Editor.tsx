import { useEffect, useRef } from "preact/hooks";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { javascriptLanguage } from "@codemirror/lang-javascript";
import { json } from "@codemirror/lang-json";
import { HighlightStyle, StreamLanguage, bracketMatching, syntaxHighlighting } from "@codemirror/language";
import { toml } from "@codemirror/legacy-modes/mode/toml";
import { Compartment, EditorState } from "@codemirror/state";
import type { Extension } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

export type Language = "json" | "js" | "toml" | "none";

interface Props {
  label: string;
  value: string;
  language: Language;
  onChange: (value: string) => void;
}

/** Characters of a text that is highlighted and wrapped: a longer one would keep the page busy for nothing. */
const HIGHLIGHTED_MAX = 200_000;

const LANGUAGES: Record<Language, Extension> = {
  json: json(),
  js: javascriptLanguage.extension,
  toml: StreamLanguage.define(toml).extension,
  none: [],
};

const highlight = HighlightStyle.define([
  { tag: [tags.propertyName, tags.keyword, tags.heading], color: "var(--accent)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--warn)" },
  { tag: tags.comment, color: "var(--soft)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

const look = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--ground)", fontSize: "13px", maxHeight: "24rem", minHeight: "10rem" },
  "&.cm-focused": { outline: "2px solid var(--accent)" },
  ".cm-scroller": { fontFamily: "var(--mono)", overflow: "auto" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--raised)", color: "var(--soft)", borderRight: "1px solid var(--line)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "transparent" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--mark)" },
});

function shown(language: Language, length: number): Extension {
  return length > HIGHLIGHTED_MAX ? [] : [LANGUAGES[language], EditorView.lineWrapping];
}

/** An editor. It stands in a shadow tree of its own: there its styles need no exception of the page's policy. */
export function Editor({ label, value, language, onChange }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const setting = useRef(new Compartment());
  const changed = useRef(onChange);
  changed.current = onChange;
  const isLong = value.length > HIGHLIGHTED_MAX;
  useEffect(() => {
    if (!place.current) return;
    const root = place.current.shadowRoot ?? place.current.attachShadow({ mode: "open" });
    const made = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: value,
        extensions: [
          lineNumbers(),
          history(),
          drawSelection(),
          highlightActiveLine(),
          bracketMatching(),
          syntaxHighlighting(highlight),
          look,
          EditorView.contentAttributes.of({ "aria-label": label }),
          // Tab leaves the editor: the page is used by the keyboard alone.
          keymap.of([...defaultKeymap, ...historyKeymap]),
          setting.current.of(shown(language, value.length)),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) changed.current(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = made;
    return () => {
      made.destroy();
      view.current = null;
    };
  }, [label]);
  useEffect(() => {
    view.current?.dispatch({ effects: setting.current.reconfigure(shown(language, value.length)) });
  }, [language, isLong]);
  useEffect(() => {
    const made = view.current;
    if (made && made.state.doc.toString() !== value) {
      made.dispatch({ changes: { from: 0, to: made.state.doc.length, insert: value } });
    }
  }, [value]);
  return <div class="editor" ref={place} />;
}
