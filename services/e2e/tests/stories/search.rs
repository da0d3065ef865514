//! What was said is found again, by those who may read it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natter_e2e::{Api, Person, soon};
use natter_protocol::{ids::ChatId, rest::SearchPage, server::HistoryPage};
use serde_json::json;

use crate::stories::{APART, STAGE};

fn contents(page: &SearchPage) -> Vec<&str> {
    page.items.iter().map(|found| found.message.content.as_str()).collect()
}

async fn until_found(api: &Api, text: &str, count: usize) -> Result<SearchPage> {
    soon("it is found", async || {
        let page = api.search(text, "limit=100").await?;
        Ok((page.items.len() == count).then_some(page))
    })
    .await
}

#[tokio::test]
async fn a_message_is_found_within_a_second_by_its_readers_only() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let eve = Person::register(&cluster, "Eve").await?;
    let chat = ana.api(0).open_group("Sailing", &[&ben]).await?.id;
    let direct = ana.api(0).direct(&eve).await?.id;
    let anas = ana.connect(0).await?;
    let word = format!("harbour{}", ana.id.0.simple());
    let sent = anas.say(chat, &format!("The boat lies in the {word} ⛵")).await?;
    until_persisted(&ben.api(1), chat, sent.seq).await?;
    let written = Instant::now();
    let page = until_found(&ben.api(1), &word, 1).await?;
    // Promised is a second; a machine that is busy with other stories has some more.
    ensure!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());
    let hit = page.items.first().context("nothing")?;
    assert_eq!((hit.message.id, hit.message.seq, hit.message.chat_id), (sent.id, sent.seq, chat));
    assert_eq!((hit.chat.id, hit.chat.name.as_str()), (chat, "Sailing"));
    let marks: Vec<_> = hit.highlights.iter().map(|mark| (mark.start, mark.end)).collect();
    assert_eq!(marks, [(21, 21 + word.len() as u32)]);

    // By parts, in any case, with other words, by the emoji.
    for text in [&word[..12], &word.to_uppercase(), &format!("{word} BOAT"), &format!("⛵ {word}")]
    {
        assert_eq!(ben.api(0).search(text, "").await?.items.len(), 1, "{text}");
    }
    // Eve, who is in another chat with Ana, does not find it, whatever she asks for.
    for query in ["", "fuzzy=true", "sort=rank", &format!("chatId={direct}")] {
        assert!(eve.api(0).search(&word, query).await?.items.is_empty(), "{query}");
    }
    eve.api(1).search_answer(&word, &format!("chatId={chat}")).await?.refused(403, "not_member")?;
    // Over a socket it is the same.
    let asked = json!({"q": word, "chatId": chat, "senderId": ana.id, "sort": "rank"});
    let bens = ben.connect(1).await?;
    let over_socket: SearchPage =
        serde_json::from_value(bens.request("search_messages", asked).await?)?;
    assert_eq!(over_socket, page);

    // Ben leaves, and finds it no more; Eve joins, and finds what was said before.
    bens.request("leave_chat", json!({"chatId": chat})).await?;
    assert!(ben.api(0).search(&word, "").await?.items.is_empty());
    eve.api(1).post(&format!("/chats/{chat}/join"), json!({})).await?.expect(200)?;
    assert_eq!(contents(&eve.api(0).search(&word, "").await?), contents(&page));
    Ok(())
}

async fn until_persisted(api: &Api, chat: ChatId, seq: u64) -> Result<()> {
    soon("the worker has written it", async || {
        Ok((api.chat(chat).await?.last_seq >= seq).then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_is_written_while_nobody_follows_is_found_later() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let chat = ana.api(0).group("Alone", &[]).await?.id;
    let word = format!("late{}", ana.id.0.simple());
    ana.api(0).say(chat, &format!("{word} one")).await?;
    until_found(&ana.api(1), &word, 1).await?;
    cluster.worker(0).terminate().await?;
    ana.api(0).say(chat, &format!("{word} two")).await?;
    assert_eq!(ana.api(0).search(&word, "").await?.items.len(), 1, "found once it is written");
    cluster.worker(0).start().await?;
    until_found(&ana.api(1), &word, 2).await?;
    // A worker that has lost track of everything begins anew.
    cluster.worker(0).kill().await?;
    cluster.sql("DELETE FROM message_search; DELETE FROM search_progress")?;
    cluster.worker(0).start().await?;
    let page = until_found(&ana.api(0), &word, 2).await?;
    assert_eq!(contents(&page), [format!("{word} two"), format!("{word} one")]);
    Ok(())
}

#[tokio::test]
async fn a_hit_leads_to_what_stands_around_it() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(anas.say(chat, &format!("said {n}")).await?.seq);
    }
    until_persisted(&ana.api(0), chat, sent[19]).await?;
    cluster.worker(0).terminate().await?;
    for n in 20..30 {
        sent.push(anas.say(chat, &format!("said {n}")).await?.seq);
    }
    let api = ben.api(1);
    let around = async |seq: u64, limit: usize| -> Result<(Vec<u64>, HistoryPage)> {
        let page = api.history(chat, &format!("around={seq}&limit={limit}")).await?;
        let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
        let mut last = page.from_seq;
        for message in &page.messages {
            assert_eq!(message.prev_seq, last, "the page has a gap");
            last = message.seq;
        }
        assert_eq!(last, page.to_seq);
        assert_eq!(
            page.has_more,
            page.has_more_before == Some(true) || page.has_more_after == Some(true)
        );
        Ok((seqs, page))
    };
    let more = |page: &HistoryPage| (page.has_more_before, page.has_more_after);
    // In what is written, over the border, and in what is not.
    for middle in [8, 18, 19, 20, 24] {
        let (seqs, page) = around(sent[middle], 9).await?;
        assert_eq!(seqs, sent[middle - 4..=middle + 4], "{middle}");
        assert_eq!(more(&page), (Some(true), Some(true)));
    }
    let (seqs, page) = around(sent[8], 4).await?;
    assert_eq!((seqs, more(&page)), (sent[7..=10].to_vec(), (Some(true), Some(true))));
    let (seqs, page) = around(sent[8], 1).await?;
    assert_eq!((seqs, more(&page)), (vec![sent[8]], (Some(true), Some(true))));
    let (seqs, page) = around(sent[29], 5).await?;
    assert_eq!((seqs, more(&page)), (sent[27..].to_vec(), (Some(true), Some(false))));
    let (seqs, page) = around(sent[29], 1).await?;
    assert_eq!((seqs, more(&page)), (vec![sent[29]], (Some(true), Some(false))));
    // Beyond the end, and before the beginning.
    let (seqs, page) = around(u64::MAX, 4).await?;
    assert_eq!((seqs, more(&page)), (sent[28..].to_vec(), (Some(true), Some(false))));
    let (seqs, page) = around(0, 4).await?;
    assert_eq!(more(&page), (Some(false), Some(true)));
    assert_eq!(seqs.len(), 2);
    // Pages go on from both ends.
    let (seqs, page) = around(sent[15], 5).await?;
    let before = api.history(chat, &format!("before={}&limit=1", seqs[0])).await?;
    assert_eq!(before.messages[0].seq, sent[12]);
    let after = api.history(chat, &format!("after={}&limit=1", page.to_seq)).await?;
    assert_eq!(after.messages[0].seq, sent[18]);
    let over_socket = json!({"chatId": chat, "around": sent[15], "limit": 5});
    let over_socket = ben.connect(0).await?.request("history", over_socket).await?;
    assert_eq!(serde_json::from_value::<HistoryPage>(over_socket)?, page);
    for bad in ["around=1&before=2", "around=1&after=2", "around=x", "around=1&limit=0"] {
        let path = format!("/chats/{chat}/messages?{bad}");
        api.get(&path).await?.refused(400, "bad_request").with_context(|| bad.to_owned())?;
    }
    cluster.worker(0).start().await?;
    until_persisted(&ana.api(0), chat, sent[29]).await?;
    assert_eq!(around(sent[24], 9).await?.0, sent[20..=28]);
    Ok(())
}

#[tokio::test]
async fn any_text_is_answered_or_refused_for_what_it_is() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let chat = ana.api(0).group("Texts", &[]).await?.id;
    let mark = format!("m{}", ana.id.0.simple());
    let texts = [
        "' OR 1=1; DROP TABLE messages; --",
        "a & b | !c <-> (d:*)",
        r#"back\slash "quotes" $1 %s {}"#,
        "שלום עולם مرحبا بالعالم",
        "👩‍👩‍👧 🏳️‍🌈 only",
        "日本語のテキスト ไทย",
        "Ｆｕｌｌ ﬁne ½",
    ];
    for text in texts {
        ana.api(0).say(chat, &format!("{mark} {text}")).await?;
    }
    until_found(&ana.api(1), &mark, texts.len()).await?;
    for text in texts {
        for query in ["", "fuzzy=true", "sort=rank"] {
            let page = ana.api(1).search(text, query).await?;
            assert_eq!(contents(&page), [format!("{mark} {text}")], "{text} {query}");
            ensure!(!page.items[0].highlights.is_empty(), "{text}");
        }
    }
    assert!(ana.api(0).search("👩‍👧 דבר", "").await?.items.is_empty());
    let refused = async |text: &str, query: &str| {
        let answer = ana.api(0).search_answer(text, query).await?;
        answer.refused(400, "bad_request").with_context(|| format!("{text} {query}"))?;
        anyhow::Ok(())
    };
    for text in ["", "   ", "!!! & | *", &"x".repeat(257), &"y".repeat(10_240), &"a ".repeat(17)] {
        refused(text, "").await?;
    }
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "cursor=x",
        "cursor=AAAA",
        "sort=worst",
        "chatId=1",
        "senderId=ana",
        "after=yesterday",
        "before=2026",
        "hasMedia=2",
        "mediaType=film",
        "fuzzy=",
        "after=0000-01-01T00:00:00Z",
    ] {
        refused("word", query).await?;
    }
    ana.api(0).search_answer("nul\0", "").await?.refused(400, "bad_request")?;
    let anas = ana.connect(0).await?;
    for wrong in
        [json!({}), json!({"q": 7}), json!({"q": "x", "limit": 1000}), json!({"fuzzy": true})]
    {
        let refused = anas.refused("search_messages", wrong.clone()).await?;
        assert_eq!(refused.code.as_str(), "bad_request", "{wrong}");
    }
    Ok(())
}

#[tokio::test]
async fn filters_and_pages_work_together() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let mark = format!("m{}", ana.id.0.simple());
    let mut chats = Vec::new();
    for n in 0..3 {
        chats.push(ana.api(0).group(&format!("Chat {n}"), &[&ben]).await?.id);
    }
    let mut sent = Vec::new();
    for n in 0..30 {
        let api = if n % 2 == 0 { ana.api(0) } else { ben.api(1) };
        sent.push(api.say(chats[n % 3], &format!("{mark} {n}")).await?);
    }
    let all = until_found(&ben.api(0), &mark, 30).await?;
    let times: Vec<_> = all.items.iter().map(|found| found.message.created_at).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    assert_eq!(all.next_cursor, None);
    for sort in ["newest", "rank"] {
        let mut paged = Vec::new();
        let mut query = format!("limit=7&sort={sort}");
        loop {
            let page = ben.api(paged.len() % 2).search(&mark, &query).await?;
            paged.extend(page.items);
            let Some(cursor) = page.next_cursor else { break };
            query = format!("limit=7&sort={sort}&cursor={cursor}");
        }
        let whole = ben.api(0).search(&mark, &format!("limit=100&sort={sort}")).await?;
        assert_eq!(paged, whole.items, "{sort}");
        assert_eq!(paged.len(), 30);
    }
    let by_ana = ana.api(1).search(&mark, &format!("senderId={}", ana.id)).await?;
    assert_eq!(by_ana.items.len(), 15);
    assert!(by_ana.items.iter().all(|found| found.message.sender_id == ana.id));
    let in_one = ana.api(1).search(&mark, &format!("chatId={}", chats[1])).await?;
    assert_eq!(in_one.items.len(), 10);
    let time = natter_protocol::timestamp::format(sent[14].created_at)?;
    let later = ana.api(0).search(&mark, &format!("after={time}&limit=100")).await?;
    assert!(later.items.iter().all(|found| found.message.created_at > sent[14].created_at));
    let earlier = ana.api(0).search(&mark, &format!("before={time}&limit=100")).await?;
    assert!(earlier.items.iter().all(|found| found.message.created_at < sent[14].created_at));
    assert!(ana.api(0).search(&mark, "hasMedia=true").await?.items.is_empty());
    // Filters alone suffice.
    let path = format!("/search/messages?senderId={}&hasMedia=false", ben.id);
    let page: SearchPage = ana.api(0).get(&path).await?.read(200)?;
    assert_eq!(page.items.len(), 15);
    assert!(page.items.iter().all(|found| found.highlights.is_empty()));
    Ok(())
}
