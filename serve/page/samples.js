// Texts to try, by the language of a model.

export const SAMPLES = {
  en: [
    "Ada Lovelace was born in London and wrote to Charles Babbage about his Analytical Engine.",
    "The European Commission fined Google in Brussels. The company said that it would appeal.",
  ],
  he: [
    "ראש הממשלה נסע אתמול לירושלים ונפגש עם נשיא ארצות הברית.",
    "הילדים משחקים בגן. אמא שלהם עובדת באוניברסיטת תל אביב.",
  ],
  pt: [
    "A Petrobras perfurou novos poços na Bacia de Santos, ao sul do Rio de Janeiro.",
    "Fernando Pessoa nasceu em Lisboa e passou a infância em Durban.",
  ],
  de: [
    "Angela Merkel studierte in Leipzig Physik und wurde 2005 Bundeskanzlerin.",
    "Die Deutsche Bahn baut in Stuttgart seit Jahren einen neuen Bahnhof.",
  ],
  hr: [
    "Nikola Tesla rođen je u Smiljanu, a studirao je u Grazu.",
    "Hrvatski sabor zasjeda u Zagrebu.",
  ],
  sr: [
    "Ivo Andrić je dobio Nobelovu nagradu u Stokholmu.",
    "Beograd leži na ušću Save u Dunav.",
  ],
  da: [
    "H.C. Andersen blev født i Odense og flyttede som ung til København.",
    "Statsministeren mødte den svenske regering i Stockholm.",
  ],
};

/** The texts for models of these languages; those for English where there are none. */
export function samplesFor(languages) {
  const known = languages.filter((language) => language in SAMPLES);
  return (known.length ? known : ["en"]).flatMap((language) =>
    SAMPLES[language].map((text) => ({ language, text })),
  );
}
