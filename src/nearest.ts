/**
 * The word that takes the fewest typos to become `word`, if these are at most `maxTypos`.
 *
 * @example nearest('wroker', ['worker', 'emit'], 3) // 'worker'
 */
export function nearest(
  word: string,
  words: readonly string[],
  maxTypos: number,
): string | undefined {
  const [best] = words
    .map((each) => ({ each, typos: editDistance(word, each) }))
    .toSorted((a, b) => a.typos - b.typos);
  return best && best.typos <= maxTypos ? best.each : undefined;
}

/** Characters to insert, delete or replace to make one text of the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
