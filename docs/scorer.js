// The order of search results: guides first. Sphinx reads this instead of its `Scorer`,
// whose numbers below are kept: a word in a title counts 15, in the text 5. So guides precede all
// others of the same kind, and a reference whose title has the word precedes a guide whose text has it.
var Scorer = {
  score: ([docname, , , , score]) => {
    const order = [['docs/tutorials/', 8], ['docs/how-to/', 8], ['docs/faq', 8], ['docs/explanation/', 6],
      ['docs/', 0], ['README', 0], ['CHANGELOG', -4]];
    const [, more] = order.find(([start]) => docname.startsWith(start)) || ['', -2];
    return score + more;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
