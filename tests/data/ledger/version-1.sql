BEGIN TRANSACTION;
CREATE TABLE calls (
	"key" VARCHAR(32) NOT NULL, 
	model TEXT NOT NULL, 
	endpoint TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	principle TEXT NOT NULL, 
	request TEXT NOT NULL, 
	status VARCHAR(8) NOT NULL, 
	completion TEXT, 
	problem TEXT, 
	tokens_in INTEGER, 
	tokens_out INTEGER, 
	tokens_cached INTEGER, 
	cost_usd FLOAT, 
	asked_at FLOAT NOT NULL, 
	answered_at FLOAT, 
	attempts INTEGER NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "calls" VALUES('d933f6bbaa60df73476b17b1e58b906c','openai/m','','label','kind','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"answered"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":"kind"}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,0.25,1.79524613774420022964e+09,1.79524613774575853347e+09,1);
INSERT INTO "calls" VALUES('9420e22b4babb089d29313558fd9ff3d','openai/m','','label','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"unpriced"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"label","principle":""}','answered','{"text":"yes","finish_reason":"stop","probabilities":{"a":0.25,"b":0.75},"served_by":"","tokens_in":7,"tokens_out":2,"tokens_cached":0,"tokens_cache_written":0}',NULL,7,2,0,NULL,1.79524613774698376658e+09,1.79524613774758791924e+09,1);
INSERT INTO "calls" VALUES('29417c3a259f37dc205bc5994cc61eed','openai/m','','revise','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"failed"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"revise","principle":""}','failed',NULL,'said',NULL,NULL,NULL,NULL,1.79524613774810934069e+09,1.79524613774838066098e+09,1);
INSERT INTO "calls" VALUES('c237046c54d8e6678777c2fefae9a7a9','openai/m','','','','{"model":"openai/m","endpoint":"","messages":[{"role":"user","content":"in flight"}],"max_tokens":8,"temperature":0.0,"top_p":1.0,"sample":0,"seed":0,"menu":{},"reasoning":true,"structured":false,"stage":"","principle":""}','intent',NULL,NULL,NULL,NULL,NULL,NULL,1.7952461377485873699e+09,NULL,1);
CREATE TABLE ledger_version (
	version INTEGER NOT NULL
);
INSERT INTO "ledger_version" VALUES(1);
COMMIT;
